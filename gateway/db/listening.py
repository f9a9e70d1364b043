"""How does a process hear at once what another one has changed?

By a connection of its own, past any pooler, on which PostgreSQL tells of every transaction that ran
`CHANGED`. Whoever listens is also told when the connection was lost and when it is back: what was
said in between was not heard.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import structlog

from gateway.db.postgres_server import CONNECT_SECONDS
from gateway.db.script import CHANNEL

CHECK_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 1.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


async def listen_forever(
    url: str, *, password: str, heard: Callable[[], None], listening: Callable[[bool], None]
) -> None:
    """Listen at a server until cancelled.

    Args:
        url: of the server itself.
        password: where the URL has none.
        heard: called when something has changed, or may have.
        listening: told whether changes are heard from now on; before `heard`.
    """
    while True:
        try:
            async with _connected(url, password) as connection:
                await _listen(connection, heard, listening)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            _log.warning("changes_not_heard", cause=repr(error))
        except Exception:  # noqa: BLE001 - it listens again; the log has it
            _log.exception("listening_failed")
        listening(False)  # noqa: FBT003 - the only thing that is told
        heard()
        await asyncio.sleep(_AGAIN_SECONDS)


@asynccontextmanager
async def _connected(url: str, password: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, password=password or None, timeout=CONNECT_SECONDS)
    try:
        yield connection
    finally:
        connection.terminate()


async def _listen(
    connection: asyncpg.Connection, heard: Callable[[], None], listening: Callable[[bool], None]
) -> None:
    def tell(*_: object) -> None:
        heard()

    await connection.add_listener(CHANNEL, tell)
    listening(True)  # noqa: FBT003 - see above
    heard()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        await connection.execute("SELECT 1", timeout=_ANSWER_SECONDS)
