"""Do the records keep every sentence about money, whatever happens in whatever order?

Random steps drive the real scripts on a real database file, and a model in plain Python beside
them. Every script is run twice whole, as after a commit whose answer was lost, and the second run
must leave every row as it was; older ones are replayed later as well.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_tools import (
    KEYS,
    LEASE_SECONDS,
    NO_IDS,
    NOW,
    a_hold,
    a_submit,
    accepted,
    bench,
    dump,
    rows,
)

from gateway.billing.budgets import ORGANIZATION_ID, PERIODS, Refusal, set_budget
from gateway.billing.ledger import audit
from gateway.db.script import Script
from gateway.videos.lifecycle import Completed, Failed, Pending, judge
from gateway.videos.orphans import (
    RELEASE_MARGIN_SECONDS,
    NoOrphan,
    TooEarly,
    attach_orphan,
    release_orphan,
    settle_orphan,
)
from gateway.videos.polls import (
    Claim,
    claim_due,
    write_completed,
    write_failed,
    write_nothing,
    write_orphan,
    write_pending,
)
from gateway.videos.records import (
    Recorded,
    open_submit,
    orphan_lapsed,
    record_accepted,
    record_orphan,
    record_refused,
)

DOLLAR = 1_000_000
LONG_SECONDS = 1800  # what the long profile may take on a slow machine
POLL_LEASE_SECONDS = 60
LEVELS = [
    ("organization", ORGANIZATION_ID),
    *[("project", project) for project in sorted(set(KEYS.values()))],
    *[("key", key) for key in KEYS],
]
PICK = st.integers(0, 10_000)


@dataclass
class Balance:
    limit: int | None
    spent: int = 0
    held: int = 0


@dataclass
class Video:
    id: str
    balances: list[str]
    price: int
    rate: int
    lease_ends_at: int
    due_at: int | None
    state: str = "held"
    spent: int = 0
    upstream_id: str | None = None
    orphan_reason: str | None = None
    refused: bool = False
    claim_number: int = 0
    missing_polls: int = 0

    @property
    def held(self) -> int:
        return self.price if self.state == "held" else 0


@dataclass
class Model:
    now: int = NOW
    budgets: dict[tuple[str, str, str], int] = field(default_factory=dict)
    balances: dict[str, Balance] = field(default_factory=dict)
    videos: list[Video] = field(default_factory=list)
    owners: dict[str, Video] = field(default_factory=dict)

    def due(self) -> list[Video]:
        """What a poll may claim now."""
        return [
            video
            for video in self.videos
            if video.upstream_id is not None
            and video.due_at is not None
            and video.due_at <= self.now
        ]

    def names(self, key: str) -> list[tuple[str, tuple[str, str, str]]]:
        day = datetime.fromtimestamp(self.now, UTC).date().isoformat()
        starts = {"day": day, "month": f"{day[:7]}-01", "total": "all"}
        levels = [("organization", ORGANIZATION_ID), ("project", KEYS[key]), ("key", key)]
        return [
            (f"{level}:{level_id}:{period}:{starts[period]}", (level, level_id, period))
            for level, level_id in levels
            for period in PERIODS
        ]

    def fits(self, key: str, price: int) -> bool:
        for name, budget in self.names(key):
            balance = self.balances.get(name) or Balance(self.budgets.get(budget))
            if balance.limit is not None and balance.spent + balance.held + price > balance.limit:
                return False
        return True

    def hold(self, video: Video, key: str) -> None:
        for name, budget in self.names(key):
            self.balances.setdefault(name, Balance(self.budgets.get(budget)))
        self.videos.append(video)
        self._change(video, held=video.price)

    def end(self, video: Video, *, state: str, cost: int) -> None:
        """The hold ends if it has not; what it costs in all is `cost` either way."""
        held = video.held
        if video.state == "held":
            video.state = state
        self._change(video, held=-held, spent=cost - video.spent)
        video.spent = cost

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
            self.end(video, state="released", cost=video.price)
            return Recorded.AFTER_RELEASE
        return Recorded.FOLLOWED

    def orphan(self, video: Video, reason: str) -> bool:
        open_end = video.upstream_id is None and not video.refused and video.state == "held"
        if not open_end or video.orphan_reason not in {None, "lease_lapsed"}:
            return False
        video.orphan_reason = reason
        self.leave(video, due_at=None)
        return True

    def _change(self, video: Video, *, held: int, spent: int = 0) -> None:
        for name in video.balances:
            self.balances[name].held += held
            self.balances[name].spent += spent


class Ledger(RuleBasedStateMachine):
    """Money, as it moves through submit, polls, orphans and late answers."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.opening = bench(Path(self.folder.name) / "gateway.db")
        self.bench = self.opening.__enter__()
        self.model = Model()
        self.claims: list[Claim] = []
        self.replays: list[Callable[[], Script[Any]]] = []
        self.upstream_ids = 0

    def teardown(self) -> None:
        if hasattr(self, "opening"):
            self.opening.__exit__(None, None, None)
            self.folder.cleanup()

    @rule(key=st.sampled_from(sorted(KEYS)), seconds=st.sampled_from([4, 8, 12]), rate=PICK)
    def hold(self, key: str, seconds: int, rate: int) -> None:
        rate = rate % 3 * DOLLAR
        model, number = self.model, len(self.model.videos)
        hold = a_hold(number, key_id=key, seconds=seconds, rate=rate, now=model.now)
        submit = a_submit(number, hold, now=model.now)
        script = partial(open_submit, submit, now=model.now)
        if not model.fits(key, seconds * rate):
            before = dump(self.bench)
            with pytest.raises(Refusal) as refusal:
                self.bench.run(script)
            refusing = refusal.value.refusing
            assert refusing
            assert all(one.available_micros < seconds * rate for one in refusing)
            assert dump(self.bench) == before
            return
        standings = self.twice(script)
        self.replays.append(script)
        model.hold(
            Video(
                id=submit.video_id,
                balances=[name for name, _ in model.names(key)],
                price=seconds * rate,
                rate=rate,
                lease_ends_at=submit.lease_ends_at,
                due_at=submit.lease_ends_at,
            ),
            key,
        )
        limited = [model.balances[name] for name, _ in model.names(key)]
        assert len(standings) == sum(balance.limit is not None for balance in limited)
        assert all(standing.available_micros >= 0 for standing in standings)

    @rule(level=st.sampled_from(LEVELS), period=st.sampled_from(PERIODS), micros=PICK)
    def set_budget(self, level: tuple[str, str], period: str, micros: int) -> None:
        limit = micros % 400 * DOLLAR
        budget = (*level, period)
        standing = self.twice(
            partial(
                set_budget,
                level=level[0],
                level_id=level[1],
                period=period,
                limit_micros=limit,
                now=self.model.now,
            )
        )
        self.model.budgets[budget] = limit
        start = {"day": self.day(), "month": f"{self.day()[:7]}-01", "total": "all"}[period]
        balance = self.model.balances.setdefault(f"{':'.join(budget)}:{start}", Balance(limit))
        balance.limit = limit
        assert (standing.spent_micros, standing.held_micros) == (balance.spent, balance.held)
        assert standing.limit_micros == limit

    @rule(step=st.sampled_from(["second", "lease", "margin", "midnight", "day", "month"]))
    def advance(self, step: str) -> None:
        if step == "midnight":
            moment = datetime.fromtimestamp(self.model.now, UTC)
            midnight = datetime.combine(moment.date() + timedelta(days=1), datetime.min.time(), UTC)
            self.model.now = int(midnight.timestamp())
            return
        self.model.now += {
            "second": 1,
            "lease": LEASE_SECONDS,
            "margin": RELEASE_MARGIN_SECONDS,
            "day": 86_400,
            "month": 31 * 86_400,
        }[step]

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK, taken=st.integers(0, 3))
    def accept(self, pick: int, taken: int) -> None:
        video, now = self.undecided(pick) if taken else self.pick(pick), self.model.now
        upstream_id = self.upstream_id(reuse=taken == 0, pick=pick)
        script = partial(
            record_accepted, video.id, accepted(upstream_id), first_poll_at=now, now=now
        )
        recorded = self.twice(script)
        self.replays.append(script)
        expected = self.model.accept(video, upstream_id, due_at=now)
        assert recorded is expected or expected is None

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK)
    def refuse(self, pick: int) -> None:
        video = self.undecided(pick)
        script = partial(record_refused, video.id, reason="refused:400", now=self.model.now)
        ended = self.twice(script)
        self.replays.append(script)
        if video.upstream_id is not None or video.refused:
            assert not ended
            return
        assert ended == (video.state == "held")
        video.refused, video.orphan_reason = True, None
        self.model.leave(video, due_at=None)
        self.model.end(video, state="released", cost=0)

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK)
    def outcome_unknown(self, pick: int) -> None:
        video = self.pick(pick)
        script = partial(
            record_orphan, video.id, reason="broken", request_ids=NO_IDS, now=self.model.now
        )
        became = self.twice(script)
        self.replays.append(script)
        assert became == self.model.orphan(video, "broken")

    @rule()
    def lapse(self) -> None:
        now = self.model.now
        found = self.twice(partial(orphan_lapsed, now=now))
        lapsed = [
            video
            for video in self.model.videos
            if video.due_at is not None and video.due_at <= now and video.upstream_id is None
        ]
        assert sorted(found) == sorted(video.id for video in lapsed)
        for video in lapsed:
            video.orphan_reason = "lease_lapsed"
            self.model.leave(video, due_at=None)

    @precondition(lambda self: self.model.videos)
    @rule(limit=st.integers(1, 4))
    def claim_some(self, limit: int) -> None:
        self.claim(limit)

    @precondition(lambda self: self.claims)
    @rule()
    def overtake(self) -> None:
        """The leases of all claims lapse, and another poller takes the videos."""
        self.model.now += POLL_LEASE_SECONDS
        self.claim(limit=4)

    def claim(self, limit: int) -> None:
        now = self.model.now
        due = {video.id: video for video in self.model.due()}
        lease_ends_at = now + POLL_LEASE_SECONDS
        claims = self.bench.run(
            partial(claim_due, limit=limit, lease_ends_at=lease_ends_at, now=now)
        )
        assert len(claims) == min(limit, len(due))
        for claim in claims:
            video = due[claim.video_id]
            self.model.leave(video, due_at=lease_ends_at)
            assert claim.claim_number == video.claim_number
            assert claim.missing_polls == video.missing_polls
            assert claim.orphaned == (video.orphan_reason is not None)
        self.claims += claims

    @precondition(lambda self: self.claims or self.model.due())
    @rule(pick=PICK, answer=st.sampled_from(["pending", "missing", "unclear", "orphan"]))
    def poll_tells_nothing(self, pick: int, answer: str) -> None:
        claim = self.a_claim(pick)
        video, now = self.video(claim), self.model.now
        due_at = now
        script: Callable[[], Script[bool]]
        match answer:
            case "pending":
                seen = {"id": claim.upstream_id, "status": "in_progress"}
                script = partial(
                    write_pending, claim, Pending("in_progress"), seen, due_at=due_at, now=now
                )
            case "orphan":
                script = partial(write_orphan, claim, reason="lost", due_at=due_at, now=now)
            case _:
                script = partial(
                    write_nothing, claim, missing=answer == "missing", due_at=due_at, now=now
                )
        written = self.write(script, claim, video)
        if not written:
            return
        video.due_at = due_at
        match answer:
            case "pending":
                video.orphan_reason, video.missing_polls = None, 0
            case "orphan":
                video.orphan_reason = "lost"
            case "missing":
                video.missing_polls += 1

    @precondition(lambda self: self.claims or self.model.due())
    @rule(pick=PICK, seconds=st.sampled_from(["1", "4", "8", "12", "16", 4, None, "many"]))
    def poll_tells_completed(self, pick: int, seconds: object) -> None:
        claim = self.a_claim(pick)
        video, now = self.video(claim), self.model.now
        seen = {"id": claim.upstream_id, "status": "completed", "seconds": seconds}
        judged = judge(seen, claim.terms)
        assert isinstance(judged, Completed)
        readable = seconds is not None and seconds != "many"
        cost = int(str(seconds)) * video.rate if readable else video.price
        assert judged.amount_micros == cost
        script = partial(
            write_completed,
            claim,
            judged,
            seen,
            assets={"video": f"asset_{claim.video_id}"},
            retention_seconds=3600,
            now=now,
        )
        before = None if video.state == "held" else video.spent
        ended = self.write(script, claim, video)
        if ended:
            assert ended.correction_micros == (0 if before is None else cost - before)
            self.over(video, state="settled", cost=cost)

    @precondition(lambda self: self.claims or self.model.due())
    @rule(pick=PICK)
    def poll_tells_failed(self, pick: int) -> None:
        claim = self.a_claim(pick)
        video = self.video(claim)
        seen = {"id": claim.upstream_id, "status": "failed"}
        before = 0 if video.state == "held" else video.spent
        script = partial(
            write_failed, claim, Failed("moderation", amount_micros=0), seen, now=self.model.now
        )
        ended = self.write(script, claim, video)
        if ended:
            assert ended.correction_micros == -before
            self.over(video, state="released", cost=0)

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK, action=st.sampled_from(["settle", "release", "attach", "attach"]))
    def person_acts(self, pick: int, action: str) -> None:
        orphans = [video for video in self.model.videos if video.orphan_reason is not None]
        # The rarest first: what was ended by a person before, was followed, and was lost again.
        orphans = [video for video in orphans if video.state != "held"] or orphans
        candidates = orphans or self.model.videos
        video, now = candidates[pick % len(candidates)], self.model.now
        early = now < video.lease_ends_at + RELEASE_MARGIN_SECONDS
        attach = action == "attach"
        upstream_id = self.upstream_id(reuse=pick % 4 == 0, pick=pick) if attach else ""
        scripts: dict[str, Callable[[], Script[Any]]] = {
            "settle": partial(settle_orphan, video.id, now=now),
            "release": partial(release_orphan, video.id, now=now),
            "attach": partial(attach_orphan, video.id, upstream_id=upstream_id, now=now),
        }
        refused = self.refused_by_twice(scripts[action])
        if not orphans or (attach and video.upstream_id is not None):
            assert isinstance(refused, NoOrphan)
        elif action == "release" and early:
            assert isinstance(refused, TooEarly)
            assert refused.seconds == video.lease_ends_at + RELEASE_MARGIN_SECONDS - now
        elif attach:
            assert refused is None
            self.model.accept(video, upstream_id, due_at=now)
        else:
            assert refused is None
            settled = action == "settle"
            self.model.leave(video, due_at=None)
            video.orphan_reason = None
            self.model.end(
                video,
                state="settled" if settled else "released",
                cost=video.price if settled else 0,
            )

    @precondition(lambda self: self.replays)
    @rule(pick=PICK)
    def replay(self, pick: int) -> None:
        before = dump(self.bench)
        self.bench.run(self.replays[pick % len(self.replays)])
        assert dump(self.bench) == before

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.bench.run(audit) == []
        found = self.bench.run(
            partial(rows, "SELECT id, limit_micros, spent_micros, held_micros FROM balances")
        )
        assert {
            row["id"]: Balance(row["limit_micros"], row["spent_micros"], row["held_micros"])
            for row in found
        } == self.model.balances
        assert all(row["held_micros"] >= 0 for row in found)
        videos = self.bench.run(
            partial(
                rows,
                "SELECT videos.id, upstream_id, due_at, claim_number, orphaned_at, refused_at,"
                " holds.state, holds.settled_micros, holds.ended_at,"
                " SUM(entries.spent_micros) AS spent, SUM(entries.held_micros) AS held,"
                " SUM(entries.kind IN ('settle', 'release')) AS ends,"
                " SUM(entries.kind = 'hold') AS holds"
                " FROM videos JOIN holds ON holds.id = videos.hold_id"
                " JOIN entries ON entries.hold_id = holds.id GROUP BY videos.id",
            )
        )
        seen = {row["id"]: row for row in videos}
        assert len(seen) == len(self.model.videos)
        for video in self.model.videos:
            row = seen[video.id]
            assert (row["state"], row["spent"], row["held"]) == (
                video.state,
                video.spent,
                video.held,
            )
            assert (row["holds"], row["ends"]) == (1, int(video.state != "held"))
            assert (row["ended_at"] is None) == (video.state == "held")
            assert (row["upstream_id"], row["due_at"], row["claim_number"]) == (
                video.upstream_id,
                video.due_at,
                video.claim_number,
            )
            assert (row["orphaned_at"] is not None) == (video.orphan_reason is not None)
            assert (row["refused_at"] is not None) == video.refused

    def twice(self, script: Callable[[], Script[Any]]) -> Any:
        answer = self.bench.run(script)
        once = dump(self.bench)
        self.bench.run(script)
        assert dump(self.bench) == once
        return answer

    def refused_by_twice(self, script: Callable[[], Script[Any]]) -> Exception | None:
        before = dump(self.bench)
        refused: Exception | None = None
        try:
            self.bench.run(script)
        except (NoOrphan, TooEarly) as refusal:
            refused = refusal
            assert dump(self.bench) == before
        once = dump(self.bench)
        try:
            self.bench.run(script)
        except (NoOrphan, TooEarly):
            assert dump(self.bench) == once
        return refused

    def a_claim(self, pick: int) -> Claim:
        """One of the claims, fresh or stale; a new one as long as anything is due."""
        if self.model.due() and (pick % 4 or not self.claims):
            self.claim(limit=1)
            return self.claims.pop()
        return self.claims.pop(pick % len(self.claims))

    def write(self, script: Callable[[], Script[Any]], claim: Claim, video: Video) -> Any:
        """Run a poll's write twice; a stale one must change nothing. Return its answer if fresh."""
        before = dump(self.bench)
        answer = self.twice(script)
        self.replays.append(script)
        fresh = claim.claim_number == video.claim_number
        written = answer if isinstance(answer, bool) else answer.written
        assert written == fresh
        if not fresh:
            assert dump(self.bench) == before
            return None
        return answer

    def over(self, video: Video, *, state: str, cost: int) -> None:
        video.due_at, video.orphan_reason, video.missing_polls = None, None, 0
        self.model.end(video, state=state, cost=cost)

    def video(self, claim: Claim) -> Video:
        return next(video for video in self.model.videos if video.id == claim.video_id)

    def undecided(self, pick: int) -> Video:
        """A video that has no id yet, by preference one whose hold a person has ended."""
        videos = [video for video in self.model.videos if video.upstream_id is None]
        ended = [video for video in videos if video.state != "held" and not video.refused]
        candidates = ended or videos or self.model.videos
        return candidates[pick % len(candidates)]

    def pick(self, pick: int) -> Video:
        return self.model.videos[pick % len(self.model.videos)]

    def upstream_id(self, *, reuse: bool, pick: int) -> str:
        if reuse and self.model.owners:
            return sorted(self.model.owners)[pick % len(self.model.owners)]
        self.upstream_ids += 1
        return f"up_{self.upstream_ids}"

    def day(self) -> str:
        return datetime.fromtimestamp(self.model.now, UTC).date().isoformat()


@pytest.mark.timeout(LONG_SECONDS)
def test_whatever_happens_the_ledger_adds_up() -> None:
    profile = os.environ.get("HYPOTHESIS_PROFILE", "short")
    run_state_machine_as_test(Ledger, settings=settings.get_profile(profile))
