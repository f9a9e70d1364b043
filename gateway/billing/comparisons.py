"""What did the last comparison of the books find? Scripts only.

The audit compares the ledger with itself, a reconciliation with an upstream's bill. Each leaves its
result here, whoever made it: the gateway, or a person at a shell.
"""

from dataclasses import dataclass
from typing import Final

from gateway.db.script import Script, Sql

AUDIT: Final = "audit"
_RECONCILE: Final = "reconcile:"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One result.

    Attributes:
        upstream: whose bill it was; None: an audit.
        compared_at: Unix seconds.
        differences: how many there are.
        drift_micros: what the upstream has billed more than the ledger says, at list price.
    """

    upstream: str | None
    compared_at: int
    differences: int
    drift_micros: int


def write_comparison(comparison: Comparison) -> Script[None]:
    """Keep a result in place of the one before it."""
    upstream = comparison.upstream
    yield Sql(
        "INSERT INTO comparisons (name, compared_at, differences, drift_micros)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE SET"
        " compared_at = excluded.compared_at, differences = excluded.differences,"
        " drift_micros = excluded.drift_micros",
        (
            AUDIT if upstream is None else f"{_RECONCILE}{upstream}",
            comparison.compared_at,
            comparison.differences,
            comparison.drift_micros,
        ),
    )


def read_comparisons() -> Script[list[Comparison]]:
    """Return the last result of each."""
    rows = yield Sql(
        "SELECT name, compared_at, differences, drift_micros FROM comparisons ORDER BY name"
    )
    return [
        Comparison(None if name == AUDIT else name.removeprefix(_RECONCILE), *rest)
        for name, *rest in rows
    ]
