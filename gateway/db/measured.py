"""How long do scripts take, and how often can they not be run? Counted around any database."""

from collections.abc import Callable
from typing import TypeVar

from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable
from gateway.telemetry.metrics.resources import ResourceMetrics

T = TypeVar("T")


class Measured:
    """A database as good as the one within, whose scripts are counted."""

    def __init__(self, database: Database, metrics: ResourceMetrics) -> None:
        self._database = database
        self._metrics = metrics

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._metrics.doing("run", failure=DatabaseUnavailable):
            return await self._database.run(script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._metrics.doing("run_beside", failure=DatabaseUnavailable):
            return await self._database.run_beside(script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._metrics.doing("read", failure=DatabaseUnavailable):
            return await self._database.read(script)
