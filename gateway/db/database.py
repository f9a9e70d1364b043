"""What may be relied on when a script is run?"""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable

T = TypeVar("T")

UNAVAILABLE: Final = "The database is not available at the moment."
WAITING_LIMIT: Final = 10_000  # scripts that wait for one connection; the next is refused at once


class Database(Protocol):
    """Runs scripts. Every sentence below has a conformance test in the same words.

    - `run` is atomic: the statements of a script are all done or none is.
    - `run` is durable on return: what a script wrote is there after a crash of process or machine.
    - A refusal raised by a script undoes that script alone, never another that ran beside it.
    - A result or a refusal is answered only after the commit that covers it.
    - Scripts are serializable: each sees the effects of whole scripts only.
    - `run_beside` is as atomic and as durable; a refusal undoes its script alone.
    - Scripts of `run_beside` run beside any others: each statement sees the effects of whole
      scripts only, but what a script has read may change before it is over. It is for scripts whose
      every statement is right by itself: claims, and writes under a claim.
    - Cancelling the caller of `run` or `run_beside` does not interrupt the script.
    - `read` sees one consistent state, and everything committed before it was called.
    - `read` refuses to write.
    - When the database cannot be reached or cannot write, `run`, `run_beside` and `read` raise
      `DatabaseUnavailable` within a bounded time, and work again once it is back.
    - After `DatabaseUnavailable` from `run` or `run_beside`, whether the script took effect is
      unknown: run it again.
    """

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script in a transaction that may write, and return its result."""
        ...

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that may write beside others, and return its result."""
        ...

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that only reads, and return its result."""
        ...


def unavailable(cause: BaseException | None) -> DatabaseUnavailable:
    """Return the error that a caller hears, and what the log is to say of it."""
    error = DatabaseUnavailable(UNAVAILABLE)
    error.__cause__ = cause
    return error


def in_words(error: Exception) -> str:
    """Return what a person at a shell is told: an error, and of the database what is behind it."""
    cause = error.__cause__
    if not isinstance(error, DatabaseUnavailable) or cause is None:
        return str(error)
    return f"{str(error).removesuffix('.')}: {str(cause) or repr(cause)}"
