"""What time is it, where several machines share a database? The database's.

A lease is written by one machine and read by another: both say `now` by the same clock, as nearly
as that can be measured.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.errors import DatabaseUnavailable

MEASURE_SECONDS: Final = 60.0
_TRIES: Final = 3
_MICROS: Final = 1_000_000
# Only servers are asked, and there is but one kind: the text is PostgreSQL's.
_NOW: Final = Sql(
    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS micros"
)

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class ServerTime:
    """Knows by how much a database server's clock is ahead of this machine's.

    Attributes:
        ahead_seconds: as it was measured last; negative where the server is behind.
    """

    def __init__(self, local: Callable[[], float]) -> None:
        self.ahead_seconds = 0.0
        self._local = local

    async def measure(self, database: Database) -> None:
        """Compare the clocks: the answer that came fastest says it most exactly.

        Raises:
            DatabaseUnavailable: there was no answer.
        """
        found = []
        for _ in range(_TRIES):
            before = self._local()
            micros = await database.read(_server_now)
            after = self._local()
            found.append((after - before, micros / _MICROS - (before + after) / 2))
        self.ahead_seconds = min(found)[1]

    async def measure_forever(self, database: Database) -> None:
        """Measure each minute until cancelled; what was measured holds until it is known better."""
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            try:
                await self.measure(database)
            except DatabaseUnavailable as error:
                _log.warning("server_time_not_measured", cause=repr(error.__cause__))
            except Exception:  # noqa: BLE001 - one turn; the log has it
                _log.exception("server_time_not_measured")


def _server_now() -> Script[int]:
    ((micros,),) = yield _NOW
    return int(micros)
