"""What did the last comparison of the books find? Scripts only.

The audit compares the ledger with itself, a reconciliation with an upstream's bill. Each leaves its
result here, whoever made it: the gateway, or a person at a shell.
"""

from dataclasses import dataclass
from typing import Final

from gateway.db.script import Script, Sql

AUDIT: Final = "audit"
_BEGUN: Final = "audit:begun"
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
    if upstream is None:
        # The next one is begun by whoever finds this one too old, not after a wait.
        yield Sql("DELETE FROM comparisons WHERE name = $1", (_BEGUN,))
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


def begin_audit(*, older_than: int, retry_at: int, now: int) -> Script[bool]:
    """Tell whether an audit is to begin, and write down that it has.

    Args:
        older_than: when the last audit has to have been made for another to be due.
        retry_at: when one that has not ended has to have begun to be taken for broken off.
        now: Unix seconds.
    """
    made = yield Sql(
        "SELECT 1 AS made FROM comparisons WHERE name = $1 AND compared_at > $2",
        (AUDIT, older_than),
    )
    if made:
        return False
    rows = yield Sql(
        "INSERT INTO comparisons (name, compared_at, differences, drift_micros)"
        " VALUES ($1, $2, 0, 0) ON CONFLICT (name) DO UPDATE SET"
        " compared_at = excluded.compared_at WHERE comparisons.compared_at <= $3 RETURNING name",
        (_BEGUN, now, retry_at),
    )
    return bool(rows)


def read_comparisons() -> Script[list[Comparison]]:
    """Return the last result of each."""
    rows = yield Sql(
        "SELECT name, compared_at, differences, drift_micros FROM comparisons WHERE name <> $1"
        " ORDER BY name",
        (_BEGUN,),
    )
    return [
        Comparison(None if name == AUDIT else name.removeprefix(_RECONCILE), *rest)
        for name, *rest in rows
    ]
