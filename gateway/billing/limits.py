"""How often, how many at once, and how dear? Scripts only.

Beside budgets, a project and a key can have limits: requests per minute and per day (UTC, of one
model or of all together), videos in flight, the price of one request. They are looked at in the
transaction of the hold, after its balances are taken: whoever holds those rows is alone with its
project, so a count read then is exact, across processes too. A request that is refused, by a limit
or by a budget, counts nothing. Counting begins when a limit is set.
"""

from dataclasses import dataclass, fields
from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.billing.balances import KEY, Account, Level
from gateway.db.script import Row, Script, Sql

MINUTE: Final = "minute"
DAY: Final = "day"
ALL_MODELS: Final = ""
WINDOW_SECONDS: Final = {MINUTE: 60, DAY: 86_400}
_COLUMNS: Final = (
    "requests_per_minute, requests_per_day, videos_in_flight, price_micros, reads_per_minute"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one level for one model (ALL_MODELS: for all together); None: no limit.

    The last three are about all models together and stand nowhere else. `price_micros` is a list
    price: what may be asked for does not depend on the terms of the upstream.
    """

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    videos_in_flight: int | None = None
    price_micros: int | None = None
    reads_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """How a limit on requests stands after a request.

    Attributes:
        window: MINUTE or DAY.
        resets_at: Unix seconds at which the count begins again.
    """

    level: str
    model: str
    window: str
    limit: int
    requests: int
    resets_at: int

    @property
    def remaining(self) -> int:
        """How many more requests fit into the window."""
        return max(0, self.limit - self.requests)


class TooManyRequests(Exception):
    """A limit on requests is reached. Raised inside a script, so that nothing changes."""

    def __init__(self, usage: Usage) -> None:
        super().__init__(f"{usage.level}: {usage.limit} per {usage.window}")
        self.usage = usage


class TooManyInFlight(Exception):
    """As many videos as a limit allows are being made."""

    def __init__(self, level: str, limit: int) -> None:
        super().__init__(f"{level}: {limit}")
        self.level = level
        self.limit = limit


class TooDear(Exception):
    """One request costs more than a limit allows."""

    def __init__(self, level: str, limit_micros: int) -> None:
        super().__init__(f"{level}: {limit_micros}")
        self.level = level
        self.limit_micros = limit_micros


def get_limits(level: Level) -> Script[dict[str, Limits]]:
    """Return the limits of a project or a key by model, ALL_MODELS among them where it has any."""
    rows = yield Sql(
        f"SELECT model, {_COLUMNS} FROM limits WHERE level = $1 AND level_id = $2 ORDER BY model",
        (level.name, level.id),
    )
    return {row["model"]: _limits(row) for row in rows}


def set_limits(change: Change, level: Level, limits: Limits, *, model: str) -> Script[None]:
    """Set the limits of a project or a key for a model, in force at once; none removes the row."""
    before = (yield from get_limits(level)).get(model, Limits())
    if limits == Limits():
        yield Sql(
            "DELETE FROM limits WHERE level = $1 AND level_id = $2 AND model = $3",
            (level.name, level.id, model),
        )
    else:
        yield Sql(
            f"INSERT INTO limits (level, level_id, model, {_COLUMNS})"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (level, level_id, model)"
            " DO UPDATE SET requests_per_minute = excluded.requests_per_minute,"
            " requests_per_day = excluded.requests_per_day,"
            " videos_in_flight = excluded.videos_in_flight,"
            " price_micros = excluded.price_micros, reads_per_minute = excluded.reads_per_minute",
            (level.name, level.id, model, *_values(limits)),
        )
    yield from write_line(
        change,
        "rate_limit.updated",
        resource="limits",
        resource_id=level.id if model == ALL_MODELS else f"{level.id}:{model}",
        project_id=level.project_id,
        before=_facts(before),
        after=_facts(limits),
    )


def take_limits(
    account: Account, *, model: str, price_micros: int, now: int
) -> Script[tuple[Usage, ...]]:
    """Count a request against every limit that concerns it; return how those on requests stand.

    `price_micros` is its list price; its model is "" for a character, which is no video in flight.
    To be run after the balances of the account are taken, in the same transaction, and before the
    row of the video is written.

    Raises:
        TooDear, TooManyInFlight, TooManyRequests: the transaction must not be kept.
    """
    usages = yield from look_at_limits(account, model=model, price_micros=price_micros, now=now)
    counted = []
    for level, usage in usages:
        window_start = usage.resets_at - WINDOW_SECONDS[usage.window]
        rows = yield Sql(
            "INSERT INTO request_counts (id, window_start, requests) VALUES ($1, $2, 1)"
            " ON CONFLICT (id) DO UPDATE SET requests = request_counts.requests + 1"
            " RETURNING requests",
            (_count_id(level, usage), window_start),
        )
        now_counted = _counted(usage, int(rows[0]["requests"]))
        if now_counted.requests > usage.limit:
            raise TooManyRequests(usage)
        counted.append(now_counted)
    return tuple(counted)


def look_at_limits(
    account: Account, *, model: str, price_micros: int, now: int
) -> Script[list[tuple[str, Usage]]]:
    """Return the limits on requests that concern a request, as they stand, with their level ids.

    Model and price are as in take_limits.

    Raises:
        TooDear, TooManyInFlight, TooManyRequests: it would be refused.
    """
    rows = yield Sql(
        f"SELECT level, level_id, model, {_COLUMNS} FROM limits"
        " WHERE ((level = 'project' AND level_id = $1) OR (level = 'key' AND level_id = $2))"
        " AND model IN ('', $3) ORDER BY level, model",
        (account.project_id, account.key_id, model),
    )
    usages = []
    for row in rows:
        level, limits = row["level"], _limits(row)
        if limits.price_micros is not None and price_micros > limits.price_micros:
            raise TooDear(level, limits.price_micros)
        # What has no model is a character: it is there at once, so it is not counted either.
        if limits.videos_in_flight is not None and model:
            yield from _check_in_flight(account, level, limits.videos_in_flight)
        for window, limit in (
            (MINUTE, limits.requests_per_minute),
            (DAY, limits.requests_per_day),
        ):
            if limit is not None:
                usage = yield from _usage(row, window, limit, now=now)
                usages.append((str(row["level_id"]), usage))
    return usages


def forget_counts(*, now: int) -> Script[int]:
    """Remove the counts of windows that are over; return how many."""
    rows = yield Sql(
        "DELETE FROM request_counts WHERE window_start < $1 RETURNING id",
        (now - 2 * WINDOW_SECONDS[DAY],),
    )
    return len(rows)


def _usage(row: Row, window: str, limit: int, *, now: int) -> Script[Usage]:
    seconds = WINDOW_SECONDS[window]
    usage = Usage(
        level=row["level"],
        model=row["model"],
        window=window,
        limit=limit,
        requests=0,
        resets_at=now - now % seconds + seconds,
    )
    rows = yield Sql(
        "SELECT requests FROM request_counts WHERE id = $1", (_count_id(row["level_id"], usage),)
    )
    usage = _counted(usage, int(rows[0]["requests"]) if rows else 0)
    if usage.remaining == 0:
        raise TooManyRequests(usage)
    return usage


def _check_in_flight(account: Account, level: str, limit: int) -> Script[None]:
    # An orphan that a person ended keeps its last status, but nobody looks at it again (due_at).
    ((videos,),) = yield Sql(
        "SELECT COUNT(*) AS videos FROM videos WHERE project_id = $1"
        " AND (CAST($2 AS TEXT) IS NULL OR key_id = $2) AND kind = 'video'"
        " AND status IN ('queued', 'in_progress') AND orphaned_at IS NULL AND refused_at IS NULL"
        " AND due_at IS NOT NULL",
        (account.project_id, account.key_id if level == KEY else None),
    )
    if videos >= limit:
        raise TooManyInFlight(level, limit)


def _counted(usage: Usage, requests: int) -> Usage:
    return Usage(usage.level, usage.model, usage.window, usage.limit, requests, usage.resets_at)


def _count_id(level_id: str, usage: Usage) -> str:
    start = usage.resets_at - WINDOW_SECONDS[usage.window]
    return f"{usage.level}:{level_id}:{usage.model}:{usage.window}:{start}"


def _limits(row: Row) -> Limits:
    return Limits(**{one.name: row[one.name] for one in fields(Limits)})


def _values(limits: Limits) -> tuple[int | None, ...]:
    return tuple(getattr(limits, one.name) for one in fields(Limits))


def _facts(limits: Limits) -> dict[str, int | None]:
    return {one.name: getattr(limits, one.name) for one in fields(Limits)}
