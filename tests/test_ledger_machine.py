"""Do the records keep every sentence about money, whatever happens in whatever order?

Random steps drive the real scripts on a real database, and a model in plain Python
(ledger_model.py) beside them. Every script is run twice whole, as after a commit whose answer was
lost, and the second run must leave every row as it was; older ones are replayed later as well.
"""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from databases import a_folder
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_model import Alert, Balance, Model, Money, Spot, Video, name
from ledger_tools import (
    KEYS,
    LEASE_SECONDS,
    NO_IDS,
    a_change,
    a_hold,
    a_level,
    a_submit,
    accepted,
    bench,
    dump,
    profile,
    rows,
)

from gateway.billing.alerts import create_alert, delete_alert, update_alert
from gateway.billing.audit import audit
from gateway.billing.audit_log import Change
from gateway.billing.balances import ORGANIZATION_ID, PERIODS, Level, Refusal
from gateway.billing.budgets import remove_budget, set_budget
from gateway.billing.ledger import correct
from gateway.billing.limits import (
    Limits,
    TooDear,
    TooManyInFlight,
    TooManyRequests,
    set_limits,
)
from gateway.billing.money import Basis
from gateway.db.script import Script
from gateway.videos.claims import Claim, claim_due
from gateway.videos.lifecycle import Completed, Failed, Pending, judge
from gateway.videos.opening import open_submit
from gateway.videos.orphans import (
    RELEASE_MARGIN_SECONDS,
    NoOrphan,
    TooEarly,
    attach_orphan,
    release_orphan,
    settle_orphan,
)
from gateway.videos.polls import (
    Ended,
    write_completed,
    write_failed,
    write_given_up,
    write_nothing,
    write_orphan,
    write_pending,
)
from gateway.videos.records import orphan_lapsed, record_accepted, record_orphan, record_refused

LONG_SECONDS = 1800  # what the long profile may take on a slow machine
POLL_LEASE_SECONDS = 60
LEVELS = [
    ("organization", ORGANIZATION_ID),
    *[("project", project) for project in sorted(set(KEYS.values()))],
    *[("key", key) for key in KEYS],
]
PICK = st.integers(0, 10_000)
SPOTS = st.sampled_from([Spot(*level, period) for level in LEVELS for period in PERIODS])
MODELS = ["sora-2", "sora-2-pro"]
BASES = [
    ("list", 1_000_000),
    ("list", 909_091),
    ("cost", 909_091),
    ("cost", 333_333),
    ("cost", 1_500_001),
]
FILLING = 4_000_000
RATES = [0, 33_333, 1_000_000, 2_000_001]
FEW = st.sampled_from([None, None, 1, 2, 5])
LIMITS = st.builds(
    Limits,
    requests_per_minute=FEW,
    requests_per_day=FEW,
    videos_in_flight=FEW,
    price_micros=st.sampled_from([None, None, None, 8_000_000, 15_000_000]),
)
LIMITS_OF_A_MODEL = st.builds(Limits, requests_per_minute=FEW, requests_per_day=FEW)
THRESHOLDS = [0, 1, 4_000_000, 10_000_000]


class Ledger(RuleBasedStateMachine):
    """Money, as it moves through submit, polls, orphans, late answers and changes of mind."""

    @initialize()
    def open(self) -> None:
        self.opening = ExitStack()
        folder = self.opening.enter_context(a_folder())
        self.bench = self.opening.enter_context(bench(folder / "gateway.db"))
        ((lines,),) = self.bench.run(partial(values, "SELECT COUNT(*) AS lines FROM audit_log"))
        self.model = Model(changes=lines)
        self.claims: list[Claim] = []
        # Each with the video that it is about.
        self.replays: list[tuple[str, Callable[[], Script[Any]]]] = []
        self.upstream_ids = 0
        self.changes = 0
        for number, key in enumerate(sorted(KEYS)):  # whatever the steps are, there is something
            self.hold(key, 4, 1_000_000, BASES[number], MODELS[0])

    def teardown(self) -> None:
        if hasattr(self, "opening"):
            self.opening.close()

    @rule(
        key=st.sampled_from(sorted(KEYS)),
        seconds=st.sampled_from([4, 8, 12]),
        rate=st.sampled_from(RATES),
        basis=st.sampled_from(BASES),
        about=st.sampled_from(MODELS),
        times=st.sampled_from([1, 1, 2, 6]),
    )
    def buy(
        self,
        key: str,
        seconds: int,
        rate: int,
        basis: tuple[str, int],
        about: str,
        times: int,
    ) -> None:
        for _ in range(times):
            self.hold(key, seconds, rate, basis, about)

    @rule(
        key=st.sampled_from(sorted(KEYS)),
        place=st.integers(0, 8),
        room=st.integers(0, 2),
        what=st.sampled_from(["budget", "a minute", "in flight"]),
    )
    def fill(self, key: str, place: int, room: int, what: str) -> None:
        """Leave room for so many purchases, and make one more."""
        spot = self.model.spots(key)[place]
        if what == "budget" or spot.level == "organization":
            balance = self.model.balances.get(name(spot, self.model.day)) or Balance(None)
            self.set_budget(spot, balance.spent + balance.held + room * FILLING)
        else:
            flying = sum(video.in_flight for video in self.model.videos)
            limits = Limits(requests_per_minute=room)
            if what == "in flight":
                limits = Limits(videos_in_flight=flying + room)
            self.limit((spot.level, spot.level_id), "", limits)
        for _ in range(room + 1):
            self.hold(key, 4, FILLING // 4, BASES[0], MODELS[0])

    def hold(self, key: str, seconds: int, rate: int, basis: tuple[str, int], about: str) -> None:
        model, number = self.model, len(self.model.videos)
        hold = a_hold(
            number,
            key_id=key,
            seconds=seconds,
            rate=rate,
            basis=Basis(*basis),
            model=about,
            now=model.now,
        )
        submit = a_submit(number, hold, now=model.now)
        video = Video(
            id=submit.video_id,
            key=key,
            day=model.day,
            model=about,
            seconds=seconds,
            price=seconds * rate,
            rate=rate,
            basis=basis[0],
            ppm=basis[1],
            lease_ends_at=submit.lease_ends_at,
            due_at=submit.lease_ends_at,
        )
        script = partial(open_submit, submit, now=model.now)
        if self.refuses(script, video):
            return
        self.replays.append((video.id, script))
        model.hold(video)

    def refuses(self, script: Callable[[], Script[Any]], video: Video) -> bool:
        """Run a submit that budgets or limits may be against; tell whether they were."""
        model = self.model
        if not model.fits(video.key, video.amount):
            refusal = self.refused(script, Refusal)
            assert refusal.refusing
            assert all(one.available_micros < video.amount for one in refusal.refusing)
            return True
        if model.refused_by_a_limit(video.key, video.model, video.price):
            self.refused(script, TooDear, TooManyInFlight, TooManyRequests)
            return True
        before = {one: model.counts[one] for one, _ in model.windows(video.key, video.model)}
        admitted = self.twice(script)
        assert all(one.remaining >= 0 for one in admitted.usages)
        assert sorted(one.requests for one in admitted.usages) == sorted(
            count + 1 for count in before.values()
        )
        assert all(standing.available_micros >= 0 for standing in admitted.standings)
        return False

    @rule(spot=SPOTS, micros=PICK)
    def change_budget(self, spot: Spot, micros: int) -> None:
        if micros % 3 == 0:
            self.remove_budget(spot, micros)
            return
        self.set_budget(spot, micros % 60 * 700_001)

    def set_budget(self, spot: Spot, limit: int) -> None:
        change, level = self.changed(), level_of(spot)
        standing = self.twice(
            partial(set_budget, change, level, period=spot.period, limit_micros=limit)
        )
        balance = self.model.set_budget(spot, limit)
        assert (standing.spent_micros, standing.held_micros) == (balance.spent, balance.held)
        assert standing.limit_micros == limit

    def remove_budget(self, spot: Spot, pick: int) -> None:
        there = [*self.model.budgets]
        if there and pick % 4:
            spot = there[pick % len(there)]
        change = self.changed()
        removed = self.twice(partial(remove_budget, change, level_of(spot), period=spot.period))
        assert removed == self.model.remove_budget(spot)
        self.model.changes -= not removed

    @rule(
        level=st.sampled_from(LEVELS[1:]),
        about=st.sampled_from(["", *MODELS]),
        limits=LIMITS,
        of_a_model=LIMITS_OF_A_MODEL,
        pick=PICK,
    )
    def set_limits(
        self, level: tuple[str, str], about: str, limits: Limits, of_a_model: Limits, pick: int
    ) -> None:
        wanted = of_a_model if about else limits
        if self.model.limits and pick % 2:  # else nothing would be admitted, sooner or later
            *level_and_id, about = sorted(self.model.limits)[pick % len(self.model.limits)]
            level, wanted = (level_and_id[0], level_and_id[1]), Limits()
        self.limit(level, about, wanted)

    def limit(self, level: tuple[str, str], about: str, wanted: Limits) -> None:
        self.twice(partial(set_limits, self.changed(), a_level(*level), wanted, model=about))
        self.model.limits.pop((*level, about), None)
        if wanted != Limits():
            self.model.limits[*level, about] = wanted

    @rule(
        spot=SPOTS,
        threshold=st.sampled_from(THRESHOLDS),
        action=st.sampled_from(["make", "make", "change", "end"]),
        pick=PICK,
    )
    def alert(self, spot: Spot, threshold: int, action: str, pick: int) -> None:
        if action == "make" or not self.model.alerts:
            self.make_alert(spot, threshold)
            return
        alert_id = sorted(self.model.alerts)[pick % len(self.model.alerts)]
        if action == "end":
            self.end_alert(alert_id)
        else:
            self.change_alert(alert_id, spot.period, threshold)

    def make_alert(self, spot: Spot, threshold: int) -> None:
        alert_id = f"alert_{self.changes}"
        self.twice(
            partial(
                create_alert,
                self.changed(),
                level_of(spot),
                alert_id=alert_id,
                period=spot.period,
                threshold_micros=threshold,
                channel={"type": "email"},
            )
        )
        self.model.alerts[alert_id] = Alert(spot, threshold)
        self.model.ring(spot, self.model.day)

    def change_alert(self, alert_id: str, period: str, threshold: int) -> None:
        alert = self.model.alerts[alert_id]
        spot = Spot(alert.spot.level, alert.spot.level_id, period)
        self.twice(
            partial(
                update_alert,
                self.changed(),
                level_of(spot),
                alert_id=alert_id,
                period=period,
                threshold_micros=threshold,
                channel={"type": "email"},
            )
        )
        self.model.alerts[alert_id] = Alert(spot, threshold)
        self.model.ring(spot, self.model.day)

    def end_alert(self, alert_id: str) -> None:
        alert = self.model.alerts.pop(alert_id)
        script = partial(delete_alert, self.changed(), level_of(alert.spot), alert_id=alert_id)
        assert self.twice(script)

    @precondition(lambda self: any(video.state != "held" for video in self.model.videos))
    @rule(pick=PICK, micros=st.sampled_from([0, 1, 7_777_777, 20_000_000]))
    def put_right(self, pick: int, micros: int) -> None:
        """What a hold has cost is corrected once it has ended."""
        ended = [video for video in self.model.videos if video.state != "held"]
        video = ended[pick % len(ended)]
        entry = f"correction_{self.changes}"
        self.changes += 1
        script = partial(
            correct,
            hold_id_of(video),
            entry_id=entry,
            list_micros=micros,
            reason="put right",
            now=self.model.now,
        )
        change = self.twice(script)
        # An end is replayed at once or never: after this it would be a decision of its own.
        self.replays = [one for one in self.replays if one[0] != video.id]
        self.replays.append((video.id, script))
        self.claims = [one for one in self.claims if one.video_id != video.id]
        assert change == self.model.end(video, state=video.state, listed=micros, entry=entry)

    @rule(step=st.sampled_from(["second", "minute", "lease", "margin", "midnight", "day", "month"]))
    def advance(self, step: str) -> None:
        if step == "midnight":
            moment = datetime.fromtimestamp(self.model.now, UTC)
            midnight = datetime.combine(moment.date() + timedelta(days=1), datetime.min.time(), UTC)
            self.model.now = int(midnight.timestamp())
            return
        self.model.now += {
            "second": 1,
            "minute": 60,
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
        self.replays.append((video.id, script))
        expected = self.model.accept(video, upstream_id, due_at=now)
        assert recorded is expected or expected is None

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK)
    def refuse(self, pick: int) -> None:
        video = self.undecided(pick)
        script = partial(record_refused, video.id, reason="refused:400", now=self.model.now)
        ended = self.twice(script)
        self.replays.append((video.id, script))
        if video.upstream_id is not None or video.refused:
            assert not ended
            return
        assert ended == (video.state == "held")
        video.refused, video.orphan_reason = True, None
        self.model.leave(video, due_at=None)
        self.model.end(video, state="released", listed=0, entry="late")

    @precondition(lambda self: self.model.videos)
    @rule(pick=PICK)
    def outcome_unknown(self, pick: int) -> None:
        video = self.undecided(pick) if pick % 2 else self.pick(pick)
        script = partial(
            record_orphan, video.id, reason="broken", request_ids=NO_IDS, now=self.model.now
        )
        became = self.twice(script)
        self.replays.append((video.id, script))
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
        assert sorted(one.video_id for one in found) == sorted(video.id for video in lapsed)
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
    @rule(pick=PICK, answer=st.sampled_from(["pending", "missing", "unclear", "orphan", "give up"]))
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
            case "orphan" | "give up" if claim.settled_at is None:
                script = partial(write_orphan, claim, reason="lost", due_at=due_at, now=now)
                answer = "orphan"
            case "orphan" | "give up":
                script = partial(write_given_up, claim, now=now)
                answer = "give up"
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
            case "give up":
                video.due_at, video.orphan_reason = None, None
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
        assert judged.list_micros == cost
        script = partial(
            write_completed,
            claim,
            judged,
            seen,
            assets={"video": f"asset_{claim.video_id}"},
            retention_seconds=3600,
            now=now,
        )
        ended = self.write(script, claim, video)
        if ended:
            self.over(video, ended, state="settled", listed=cost)

    @precondition(lambda self: self.claims or self.model.due())
    @rule(pick=PICK)
    def poll_tells_failed(self, pick: int) -> None:
        claim = self.a_claim(pick)
        video = self.video(claim)
        seen = {"id": claim.upstream_id, "status": "failed"}
        script = partial(
            write_failed, claim, Failed("moderation", list_micros=0), seen, now=self.model.now
        )
        ended = self.write(script, claim, video)
        if ended:
            self.over(video, ended, state="released", listed=0)

    @precondition(lambda self: self.model.videos)
    @rule(
        pick=PICK,
        action=st.sampled_from(["settle", "release", "attach", "attach"]),
        bill=st.sampled_from([None, 0, 1_234_567, 30_000_000]),
    )
    def person_acts(self, pick: int, action: str, bill: int | None) -> None:
        if pick % 3 and all(video.orphan_reason is None for video in self.model.videos):
            self.outcome_unknown(pick)
        orphans = [video for video in self.model.videos if video.orphan_reason is not None]
        # The rarest first: what was ended by a person before, was followed, and was lost again.
        orphans = [video for video in orphans if video.state != "held"] or orphans
        candidates = orphans or self.model.videos
        video, now = candidates[pick % len(candidates)], self.model.now
        early = now < video.lease_ends_at + RELEASE_MARGIN_SECONDS
        attach = action == "attach"
        upstream_id = self.upstream_id(reuse=pick % 4 == 0, pick=pick) if attach else ""
        change = self.changed()
        scripts: dict[str, Callable[[], Script[Any]]] = {
            "settle": partial(settle_orphan, change, video.id, list_micros=bill),
            "release": partial(release_orphan, change, video.id),
            "attach": partial(attach_orphan, change, video.id, upstream_id=upstream_id),
        }
        refused = self.refused_by_twice(scripts[action])
        self.model.changes -= refused is not None
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
                listed=(video.price if bill is None else bill) if settled else 0,
                entry="orphan",
            )
            if settled and video.upstream_id is not None and video.state == "settled":
                video.due_at, video.missing_polls = now, 0

    @precondition(lambda self: self.replays)
    @rule(pick=PICK)
    def replay(self, pick: int) -> None:
        before = dump(self.bench)
        _, script = self.replays[pick % len(self.replays)]
        self.bench.run(script)
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
        self.other_sums_agree()
        videos = self.bench.run(
            partial(
                rows,
                "SELECT videos.id, upstream_id, due_at, claim_number, orphaned_at, refused_at,"
                " holds.state, holds.amount_micros, holds.settled_micros, holds.ended_at,"
                " SUM(entries.spent_micros) AS spent, SUM(entries.held_micros) AS held,"
                " SUM(entries.list_micros) AS listed, SUM(entries.cost_micros) AS cost,"
                " SUM(CASE WHEN entries.kind IN ('settle', 'release') THEN 1 ELSE 0 END) AS ends,"
                " SUM(CASE WHEN entries.kind = 'hold' THEN 1 ELSE 0 END) AS holds"
                " FROM videos JOIN holds ON holds.id = videos.hold_id"
                " JOIN entries ON entries.hold_id = holds.id GROUP BY videos.id, holds.id",
            )
        )
        seen = {row["id"]: row for row in videos}
        assert len(seen) == len(self.model.videos)
        for video in self.model.videos:
            row = seen[video.id]
            assert (row["state"], row["amount_micros"], row["held"]) == (
                video.state,
                video.amount,
                video.held,
            )
            assert Money(row["spent"], row["listed"], row["cost"]) == video.money
            settled = None if video.state == "held" else video.money.spent
            assert row["settled_micros"] == settled
            assert (row["holds"], row["ends"]) == (1, int(video.state != "held"))
            assert (row["ended_at"] is None) == (video.state == "held")
            assert (row["upstream_id"], row["due_at"], row["claim_number"]) == (
                video.upstream_id,
                video.due_at,
                video.claim_number,
            )
            assert (row["orphaned_at"] is not None) == (video.orphan_reason is not None)
            assert (row["refused_at"] is not None) == video.refused

    def other_sums_agree(self) -> None:
        """Costs by line item, counted requests, what alerts have rung for, and the audit log."""
        run = self.bench.run
        sums = "spent_micros, list_micros, cost_micros, videos, clip_seconds"
        found = run(partial(values, f"SELECT id, {sums} FROM costs"))
        assert {row_id: kept for row_id, *kept in found} == self.model.costs
        found = run(partial(values, "SELECT id, requests FROM request_counts"))
        assert dict(found) == {one: count for one, count in self.model.counts.items() if count}
        found = run(partial(values, "SELECT id, spent_micros, limit_micros FROM alert_deliveries"))
        assert {row_id: tuple(kept) for row_id, *kept in found} == self.model.rung
        ((lines,),) = run(partial(values, "SELECT COUNT(*) AS lines FROM audit_log"))
        assert lines == self.model.changes

    def changed(self) -> Change:
        """Somebody changes something; it leaves a line in the audit log."""
        self.changes += 1
        self.model.changes += 1
        return a_change(f"change {self.changes}", now=self.model.now)

    def refused(self, script: Callable[[], Script[Any]], *errors: type[Exception]) -> Any:
        before = dump(self.bench)
        with pytest.raises(errors) as refusal:
            self.bench.run(script)
        assert dump(self.bench) == before
        return refusal.value

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
        self.replays.append((video.id, script))
        fresh = claim.claim_number == video.claim_number
        written = answer if isinstance(answer, bool) else answer.written
        assert written == fresh
        if not fresh:
            assert dump(self.bench) == before
            return None
        return answer

    def over(self, video: Video, ended: Ended, *, state: str, listed: int) -> None:
        video.due_at, video.orphan_reason, video.missing_polls = None, None, 0
        was_held = video.state == "held"
        change = self.model.end(video, state=state, listed=listed, entry="final")
        assert ended.correction_micros == (0 if was_held else change)

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


def values(text: str) -> Script[list[list[Any]]]:
    """What a statement returns, without the names."""
    return [[*row.values()] for row in (yield from rows(text))]


def level_of(spot: Spot) -> Level:
    return a_level(spot.level, spot.level_id)


def hold_id_of(video: Video) -> str:
    return video.id.replace("vid", "hold")


@pytest.mark.timeout(LONG_SECONDS)
def test_whatever_happens_the_ledger_adds_up() -> None:
    run_state_machine_as_test(Ledger, settings=profile())
