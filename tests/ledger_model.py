"""What do the records have to say about money? The same in plain Python, for the state machine."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

from ledger_tools import KEYS, NOW, SIZE

from gateway.billing.balances import ORGANIZATION_ID, PERIODS
from gateway.billing.limits import Limits
from gateway.videos.records import Recorded

WINDOWS = {"minute": 60, "day": 86_400}


@dataclass(frozen=True)
class Spot:
    """A level and one of its periods."""

    level: str
    level_id: str
    period: str


@dataclass
class Balance:
    limit: int | None
    spent: int = 0
    held: int = 0


@dataclass(frozen=True)
class Money:
    """One amount on three scales."""

    spent: int = 0
    listed: int = 0
    cost: int = 0


@dataclass
class Alert:
    spot: Spot
    threshold: int


@dataclass
class Video:
    id: str
    key: str
    day: str
    model: str
    seconds: int
    price: int
    rate: int
    basis: str
    ppm: int
    lease_ends_at: int
    due_at: int | None
    state: str = "held"
    money: Money = field(default_factory=Money)
    adjusted: set[str] = field(default_factory=set)
    upstream_id: str | None = None
    orphan_reason: str | None = None
    refused: bool = False
    claim_number: int = 0
    missing_polls: int = 0

    def at(self, listed: int) -> Money:
        """A list price on all three scales."""
        cost = ceil(Fraction(listed * self.ppm, 1_000_000))
        return Money(cost if self.basis == "cost" else listed, listed, cost)

    @property
    def amount(self) -> int:
        return self.at(self.price).spent

    @property
    def held(self) -> int:
        return self.amount if self.state == "held" else 0

    @property
    def in_flight(self) -> bool:
        """Somebody looks at it again, and it is no orphan: it is being made."""
        return self.due_at is not None and self.orphan_reason is None


@dataclass
class Model:
    now: int = NOW
    budgets: dict[Spot, int] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    costs: dict[str, list[int]] = field(default_factory=dict)
    limits: dict[tuple[str, str, str], Limits] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    alerts: dict[str, Alert] = field(default_factory=dict)
    rung: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    changes: int = 0
    videos: list[Video] = field(default_factory=list)
    owners: dict[str, Video] = field(default_factory=dict)

    @property
    def day(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).date().isoformat()

    def due(self) -> list[Video]:
        """What a poll may claim now."""
        return [
            video
            for video in self.videos
            if video.upstream_id is not None
            and video.due_at is not None
            and video.due_at <= self.now
        ]

    def spots(self, key: str) -> list[Spot]:
        levels = [("organization", ORGANIZATION_ID), ("project", KEYS[key]), ("key", key)]
        return [Spot(level, level_id, period) for level, level_id in levels for period in PERIODS]

    def fits(self, key: str, amount: int) -> bool:
        for spot in self.spots(key):
            balance = self.balances.get(name(spot, self.day)) or Balance(self.budgets.get(spot))
            if balance.limit is not None and balance.spent + balance.held + amount > balance.limit:
                return False
        return True

    def refused_by_a_limit(self, key: str, model: str, listed: int) -> bool:
        for level_id, limits in self.concerned(key, model):
            if limits.price_micros is not None and listed > limits.price_micros:
                return True
            flying = sum(
                video.in_flight and level_id in {video.key, KEYS[video.key]}
                for video in self.videos
            )
            if limits.videos_in_flight is not None and flying >= limits.videos_in_flight:
                return True
        return any(self.counts[one] >= limit for one, limit in self.windows(key, model))

    def concerned(self, key: str, model: str) -> list[tuple[str, Limits]]:
        """The limits that concern a request, whose they are."""
        return [
            (level_id, limits)
            for (_, level_id, about), limits in self.limits.items()
            if level_id in {key, KEYS[key]} and about in {"", model}
        ]

    def windows(self, key: str, model: str) -> list[tuple[str, int]]:
        """What a request is counted in, with the limit."""
        return [
            (f"{level}:{level_id}:{about}:{window}:{self.now - self.now % seconds}", limit)
            for (level, level_id, about), limits in self.limits.items()
            if level_id in {key, KEYS[key]} and about in {"", model}
            for window, seconds in WINDOWS.items()
            if (limit := getattr(limits, f"requests_per_{window}")) is not None
        ]

    def hold(self, video: Video) -> None:
        for spot in self.spots(video.key):
            self.balances.setdefault(name(spot, video.day), Balance(self.budgets.get(spot)))
        self.counts.update(one for one, _ in self.windows(video.key, video.model))
        self.videos.append(video)
        self._move(video, held=video.amount, money=Money())

    def set_budget(self, spot: Spot, limit: int) -> Balance:
        self.budgets[spot] = limit
        balance = self.balances.setdefault(name(spot, self.day), Balance(limit))
        balance.limit = limit
        return balance

    def remove_budget(self, spot: Spot) -> bool:
        there = self.budgets.pop(spot, None) is not None
        balance = self.balances.get(name(spot, self.day))
        if there and balance is not None:
            balance.limit = None
        return there

    def end(self, video: Video, *, state: str, listed: int, entry: str) -> int:
        """End the hold if it has not ended, else adjust it once per entry; return the change."""
        before, held = video.money, video.held
        if video.state == "held":
            video.state = state
        elif listed == before.listed or entry in video.adjusted:
            return 0
        else:
            video.adjusted.add(entry)
        video.money = video.at(listed)
        change = Money(
            video.money.spent - before.spent,
            video.money.listed - before.listed,
            video.money.cost - before.cost,
        )
        self._move(video, held=-held, money=change)
        if change != Money():
            self._add_costs(video, change, videos=(listed > 0) - (before.listed > 0))
        if change.spent > 0:
            for spot in self.spots(video.key):
                self.ring(spot, video.day)
        return change.spent

    def ring(self, spot: Spot, day: str) -> None:
        balance = self.balances.get(name(spot, day))
        for alert_id, alert in self.alerts.items():
            if alert.spot == spot and balance is not None and balance.spent >= alert.threshold:
                delivery = f"{alert_id}:{spot.period}:{start(spot.period, day)}:{alert.threshold}"
                self.rung.setdefault(delivery, (balance.spent, balance.limit))

    def leave(self, video: Video, *, due_at: int | None) -> None:
        """Take a video out of every claim."""
        video.due_at = due_at
        video.claim_number += 1

    def accept(self, video: Video, upstream_id: str, *, due_at: int) -> Recorded | None:
        if video.upstream_id is not None:
            return None if video.upstream_id == upstream_id else Recorded.DUPLICATE
        if self.owners.setdefault(upstream_id, video) is not video:
            self.orphan(video, "duplicate_upstream_id")
            return Recorded.DUPLICATE
        self.leave(video, due_at=due_at)
        video.upstream_id, video.orphan_reason, video.refused = upstream_id, None, False
        if video.state == "released":
            self.end(video, state="released", listed=video.price, entry="late")
            return Recorded.AFTER_RELEASE
        return Recorded.FOLLOWED

    def orphan(self, video: Video, reason: str) -> bool:
        open_end = video.upstream_id is None and not video.refused and video.state == "held"
        if not open_end or video.orphan_reason not in {None, "lease_lapsed"}:
            return False
        video.orphan_reason = reason
        self.leave(video, due_at=None)
        return True

    def _move(self, video: Video, *, held: int, money: Money) -> None:
        for spot in self.spots(video.key):
            balance = self.balances[name(spot, video.day)]
            balance.held += held
            balance.spent += money.spent

    def _add_costs(self, video: Video, change: Money, *, videos: int) -> None:
        item = f"{video.model}:{SIZE}:create"
        project = KEYS[video.key]
        sums = (change.spent, change.listed, change.cost, videos, videos * video.seconds)
        for row in (
            f"day:{video.day}:{project}:{video.key}:{item}",
            f"month:{start('month', video.day)}:{project}::{item}",
        ):
            before = self.costs.get(row, [0] * len(sums))
            self.costs[row] = [old + new for old, new in zip(before, sums, strict=True)]


def start(period: str, day: str) -> str:
    return {"day": day, "month": f"{day[:7]}-01", "total": "all"}[period]


def name(spot: Spot, day: str) -> str:
    return f"{spot.level}:{spot.level_id}:{spot.period}:{start(spot.period, day)}"
