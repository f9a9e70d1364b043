"""How much is spent and held, and does a hold fit?

Balances exist for organization, project and key in the periods day, month and total (UTC
calendar), budget or not, so that no first request of a period is refused for want of a row and
every report has its rollup. The limit stands on the balance row itself: the conditional update
that takes a hold reads limit, spend and held of one row at one moment.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Final

from gateway.db.script import Row, Rows, Script, Sql

ORGANIZATION: Final = "organization"
PROJECT: Final = "project"
KEY: Final = "key"
LEVELS: Final = (ORGANIZATION, PROJECT, KEY)
PERIODS: Final = ("day", "month", "total")
# There is one organization; its balances need an id like the others.
ORGANIZATION_ID: Final = "organization"
_OPEN_ENDED: Final = "all"
_ACCOUNTS: Final = 1_000  # whose names of balances are remembered

STANDING: Final = "id, level, period, period_start, limit_micros, spent_micros, held_micros"
_TAKE: Final = (
    "UPDATE balances SET held_micros = held_micros + $1"
    " WHERE id IN ($2, $3, $4, $5, $6, $7, $8, $9, $10)"
    " AND (limit_micros IS NULL OR spent_micros + held_micros + $1 <= limit_micros)"
    f" RETURNING {STANDING}"
)
_MOVE: Final = (
    "UPDATE balances SET held_micros = held_micros + $1, spent_micros = spent_micros + $2"
    " WHERE id IN ($3, $4, $5, $6, $7, $8, $9, $10, $11)"
)
_LOOK: Final = (
    f"SELECT {STANDING} FROM balances WHERE id IN ($1, $2, $3, $4, $5, $6, $7, $8, $9) ORDER BY id"
)
_OPEN: Final = (
    "INSERT INTO balances (id, level, level_id, period, period_start, limit_micros,"
    " spent_micros, held_micros)"
    " SELECT $1, $2, $3, $4, $5, (SELECT limit_micros FROM budgets WHERE level = $2"
    " AND level_id = $3 AND period = $4), 0, 0 WHERE true ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Level:
    """What a budget, a limit or an alert is about.

    Attributes:
        name: ORGANIZATION, PROJECT or KEY.
        project_id: of a project or a key; None for the organization.
    """

    name: str
    id: str
    project_id: str | None


THE_ORGANIZATION: Final = Level(ORGANIZATION, ORGANIZATION_ID, None)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose money: one key of one project on one UTC day. It names exactly nine balances."""

    project_id: str
    key_id: str
    accounting_day: str

    def balances(self) -> tuple["BalanceName", ...]:
        """Return the nine balances, organization first, day before month before total."""
        return _balances_of(self)


@lru_cache(maxsize=_ACCOUNTS)
def _balances_of(account: Account) -> tuple["BalanceName", ...]:
    day = date.fromisoformat(account.accounting_day)
    levels = ((ORGANIZATION, ORGANIZATION_ID), (PROJECT, account.project_id), (KEY, account.key_id))
    return tuple(
        BalanceName(level, level_id, period, period_start(period, day))
        for level, level_id in levels
        for period in PERIODS
    )


@dataclass(frozen=True, slots=True)
class BalanceName:
    """Which balance: a level, a period, and when the period began (a UTC date, or `all`)."""

    level: str
    level_id: str
    period: str
    start: str

    @property
    def id(self) -> str:
        """The primary key of the balance."""
        return f"{self.level}:{self.level_id}:{self.period}:{self.start}"


@dataclass(frozen=True, slots=True)
class Standing:
    """One balance that has a limit, as it stood when it was looked at."""

    level: str
    period: str
    period_start: str
    limit_micros: int
    spent_micros: int
    held_micros: int

    @property
    def available_micros(self) -> int:
        """What may still be held; negative after a settle above the hold."""
        return self.limit_micros - self.spent_micros - self.held_micros

    @property
    def resets_on(self) -> str | None:
        """The UTC date on which the next period begins, or None for a total."""
        if self.period == "total":
            return None
        start = date.fromisoformat(self.period_start)
        if self.period == "day":
            return (start + timedelta(days=1)).isoformat()
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1).isoformat()


class Refusal(Exception):
    """A budget is too small for a hold. Raised inside a script, so that nothing changes."""

    def __init__(self, refusing: tuple[Standing, ...]) -> None:
        super().__init__(f"{len(refusing)} balances refuse")
        self.refusing = refusing


def accounting_day(now: int) -> str:
    """Return the UTC day of a moment, as an ISO date."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def period_start(period: str, day: date) -> str:
    """Return when the period that a day belongs to began."""
    match period:
        case "day":
            return day.isoformat()
        case "month":
            return day.replace(day=1).isoformat()
    return _OPEN_ENDED


def balance_name(level: Level, *, period: str, now: int) -> BalanceName:
    """Return which balance a level's period that a moment belongs to has."""
    day = date.fromisoformat(accounting_day(now))
    return BalanceName(level.name, level.id, period, period_start(period, day))


def take(account: Account, *, amount_micros: int) -> Script[tuple[Standing, ...]]:
    """Set money aside on all nine balances, and return those with a limit as they stand now.

    Raises:
        Refusal: at least one limit is too small; the transaction must not be kept.
    """
    names = account.balances()
    ids = tuple(name.id for name in names)
    taken = list((yield Sql(_TAKE, (amount_micros, *ids))))
    if len(taken) < len(ids):
        # Only the first hold of a day, a month or a key finds one that is not open yet.
        yield from open_balances(names)
        held = {row["id"] for row in taken}
        left = [one for one in ids if one not in held]
        padded = left + left[-1:] * (len(ids) - len(left))
        taken += yield Sql(_TAKE, (amount_micros, *padded))
    if len(taken) < len(ids):
        held = {row["id"] for row in taken}
        rows = yield Sql(_LOOK, ids)
        raise Refusal(standings([row for row in rows if row["id"] not in held]))
    return standings(sorted(taken, key=itemgetter("id")))


def look(account: Account) -> Script[tuple[Standing, ...]]:
    """Return the balances of an account that have a limit, as they stand or would be opened."""
    names = account.balances()
    rows = yield Sql(_LOOK, tuple(name.id for name in names))
    there = {row["id"] for row in rows}
    found = list(standings(rows))
    for name in names:
        if name.id in there:
            continue
        budgets = yield Sql(
            "SELECT limit_micros FROM budgets WHERE level = $1 AND level_id = $2 AND period = $3",
            (name.level, name.level_id, name.period),
        )
        found += [
            Standing(name.level, name.period, name.start, int(row["limit_micros"]), 0, 0)
            for row in budgets
        ]
    return tuple(found)


def move(account: Account, *, held_micros: int, spent_micros: int) -> Script[None]:
    """Change held and spend of the nine balances by signed amounts, whatever the limits."""
    ids = tuple(name.id for name in account.balances())
    yield Sql(_MOVE, (held_micros, spent_micros, *ids))


def open_balances(names: tuple[BalanceName, ...]) -> Script[None]:
    """Make sure that balances exist, with the limit that their budget has."""
    ids = tuple(name.id for name in names)
    marks = ", ".join(f"${number}" for number in range(1, len(ids) + 1))
    found = yield Sql(f"SELECT id FROM balances WHERE id IN ({marks})", ids)
    if len(found) == len(ids):
        return
    there = {row["id"] for row in found}
    for name in names:
        if name.id not in there:
            yield Sql(_OPEN, (name.id, name.level, name.level_id, name.period, name.start))


def standings(rows: Rows | list[Row]) -> tuple[Standing, ...]:
    """Return those of some balances (columns STANDING) that have a limit."""
    return tuple(
        Standing(
            level=row["level"],
            period=row["period"],
            period_start=row["period_start"],
            limit_micros=row["limit_micros"],
            spent_micros=row["spent_micros"],
            held_micros=row["held_micros"],
        )
        for row in rows
        if row["limit_micros"] is not None
    )
