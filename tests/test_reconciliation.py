"""Does every hold and every row end in one finding, and only what is certain in a proposal?"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.bill import CHARGE, REFUND, BillRow
from gateway.videos.matching import BY_AMOUNT, BY_REQUEST, BY_VIDEO, WINDOW_SECONDS, OurHold
from gateway.videos.reconciliation import (
    DIFFERENT,
    EQUAL,
    NOTHING,
    ONLY_OURS,
    ONLY_THEIRS,
    ORPHAN,
    RELEASE,
    SETTLE,
    UNDER_WAY,
    Finding,
    reconcile,
)

NOON = 1_795_348_800
PRICE = 400_000
FAR = 86_400


def a_hold(number: int = 1, **facts: Any) -> OurHold:
    """A settled hold with all its ids, unless the facts say otherwise."""
    usual: dict[str, Any] = {
        "hold_id": f"hold_{number}",
        "video_id": f"vid_{number}",
        "upstream_id": f"video_upstream_{number}",
        "model": "sora-2",
        "operation": "create",
        "created_at": NOON,
        "ended_at": NOON + 60,
        "state": "settled",
        "held_micros": PRICE,
        "settled_micros": PRICE,
        "orphaned": False,
        "refused": False,
        "relay_request_id": f"relay_{number}",
        "provider_request_id": f"provider_{number}",
    }
    return OurHold(**(usual | facts))


def an_orphan(number: int = 1, **facts: Any) -> OurHold:
    """A hold of which nothing came back."""
    lost = {"state": "held", "settled_micros": 0, "orphaned": True, "ended_at": None}
    ids = {"upstream_id": None, "relay_request_id": None, "provider_request_id": None}
    return a_hold(number, **(lost | ids | facts))


def a_charge(number: int = 1, **facts: Any) -> BillRow:
    usual: dict[str, Any] = {
        "kind": CHARGE,
        "created_at": NOON + 1,
        "micros": PRICE,
        "model": "sora-2",
        "upstream_id": f"video_upstream_{number}",
        "request_id": f"relay_{number}",
        "content": "",
        "row_id": f"row_{number}",
    }
    return BillRow(**(usual | facts))


def a_refund(number: int = 1, **facts: Any) -> BillRow:
    given_back = {"kind": REFUND, "micros": -PRICE, "request_id": None, "created_at": NOON + 60}
    return a_charge(number, **(given_back | facts))


def found(
    holds: list[OurHold],
    rows: list[BillRow],
    *,
    read_from: int = NOON - FAR,
    read_to: int = NOON + FAR,
) -> list[Finding]:
    return reconcile(holds, rows, read_from=read_from, read_to=read_to)


def only(holds: list[OurHold], rows: list[BillRow], **read: int) -> Finding:
    (finding,) = found(holds, rows, **read)
    return finding


def kinds(holds: list[OurHold], rows: list[BillRow]) -> Counter[str]:
    return Counter(one.kind for one in found(holds, rows))


@pytest.mark.parametrize(
    ("hold", "rows", "kind"),
    [
        (a_hold(), [a_charge()], EQUAL),
        (a_hold(state="released", settled_micros=0), [a_charge(), a_refund()], EQUAL),
        (a_hold(state="released", settled_micros=0), [a_charge()], DIFFERENT),
        (a_hold(), [a_charge(), a_refund()], DIFFERENT),
        (a_hold(), [a_charge(micros=PRICE + 2)], DIFFERENT),
        (a_hold(settled_micros=0), [], NOTHING),
        (a_hold(state="released", settled_micros=0), [], NOTHING),
        (a_hold(), [], ONLY_OURS),
        (a_hold(state="held", settled_micros=0), [a_charge()], UNDER_WAY),
        (a_hold(state="held", settled_micros=0), [], UNDER_WAY),
    ],
)
def test_what_both_sides_say_is_one_finding(hold: OurHold, rows: list[BillRow], kind: str) -> None:
    assert only([hold], rows).kind == kind


def test_a_settlement_row_counts_with_its_charge() -> None:
    settlement = a_charge(micros=-20_000, request_id=None)
    finding = only([a_hold(settled_micros=PRICE - 20_000)], [settlement, a_charge()])
    assert (finding.kind, finding.theirs_micros) == (EQUAL, PRICE - 20_000)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, BY_REQUEST),
        ({"request_id": "provider_1", "upstream_id": None}, BY_REQUEST),
        ({"request_id": None}, BY_VIDEO),
        ({"request_id": None, "upstream_id": None, "content": "x video_upstream_1."}, BY_VIDEO),
        ({"request_id": None, "upstream_id": None}, BY_AMOUNT),
    ],
)
def test_a_row_is_matched_by_the_best_there_is(changes: dict[str, Any], how: str) -> None:
    finding = only([a_hold()], [a_charge(**changes)])
    assert (finding.kind, finding.matched_by) == (EQUAL, how)


def test_an_odd_id_is_found_within_words_and_a_short_one_is_not() -> None:
    odd = a_hold(upstream_id="video/a b/1234", relay_request_id=None)
    words: dict[str, Any] = {"request_id": "other", "upstream_id": None, "created_at": NOON + FAR}
    assert only([odd], [a_charge(content="任务ID: video/a b/1234, x", **words)]).kind == EQUAL
    short = a_hold(upstream_id="1", relay_request_id=None)
    assert kinds([short], [a_charge(content="group ratio 1", **words)])[ONLY_THEIRS] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": NOON + WINDOW_SECONDS + 1},
        {"created_at": NOON - WINDOW_SECONDS - 1},
        {"model": "sora-2-pro"},
        {"micros": PRICE + 2},
        {"request_id": "another"},
        {"upstream_id": "video_another_one"},
    ],
)
def test_the_amount_matches_only_where_nothing_speaks_against_it(changes: dict[str, Any]) -> None:
    no_ids = {"request_id": None, "upstream_id": None}
    row = a_charge(**(no_ids | changes))
    assert kinds([a_hold()], [row]) == {ONLY_OURS: 1, ONLY_THEIRS: 1}


def test_what_was_refused_takes_no_part_in_matching_by_amount() -> None:
    refused = an_orphan(2, state="released", orphaned=False, refused=True)
    findings = found([an_orphan(), refused], [a_charge()])
    assert [one.kind for one in findings] == [ORPHAN, NOTHING]
    assert findings[0].proposal is not None


def test_a_charge_is_settled_with_the_id_that_it_names() -> None:
    finding = only([an_orphan()], [a_charge()])
    assert finding.kind == ORPHAN
    assert finding.proposal is not None
    assert finding.proposal.action == SETTLE
    assert finding.proposal.amount_micros == PRICE
    assert finding.proposal.upstream_id == "video_upstream_1"
    assert not finding.proposal.weak


def test_an_id_that_is_known_already_is_not_proposed() -> None:
    lost = an_orphan(upstream_id="video_upstream_1")
    finding = only([lost], [a_charge()])
    assert finding.proposal is not None
    assert finding.proposal.upstream_id is None
    second = an_orphan(2, relay_request_id="relay_2")
    rows = [a_charge(), a_charge(2, upstream_id="video_upstream_1")]
    owner, finding = found([a_hold(), second], rows)
    assert owner.kind == EQUAL
    assert finding.proposal is not None
    assert (finding.proposal.action, finding.proposal.upstream_id) == (SETTLE, None)


@pytest.mark.parametrize("ids", [{}, {"relay_request_id": "relay_1"}])
def test_what_was_charged_and_given_back_is_released(ids: dict[str, Any]) -> None:
    finding = only([an_orphan(**ids)], [a_refund(), a_charge()])
    assert finding.proposal is not None
    assert (finding.proposal.action, finding.proposal.weak) == (RELEASE, False)


def test_a_refund_of_an_id_that_was_charged_twice_leaves_no_proposal() -> None:
    second = an_orphan(2, relay_request_id="relay_2")
    rows = [a_charge(), a_charge(2, upstream_id="video_upstream_1"), a_refund()]
    finding = next(one for one in found([a_hold(), second], rows) if one.kind == ORPHAN)
    assert finding.proposal is None
    assert "more than once" in finding.note


def test_more_given_back_than_charged_leaves_no_proposal() -> None:
    finding = only([an_orphan(upstream_id="video_upstream_1")], [a_refund()])
    assert finding.proposal is None
    assert "More was given back" in finding.note


def test_no_charge_releases_weakly_where_the_bill_was_read_far_enough() -> None:
    finding = only([an_orphan()], [])
    assert finding.proposal is not None
    assert (finding.proposal.action, finding.proposal.weak) == (RELEASE, True)
    reach = WINDOW_SECONDS + 3_600
    assert only([an_orphan()], [], read_from=NOON - reach, read_to=NOON + reach).proposal
    assert only([an_orphan()], [], read_from=NOON - reach + 1).proposal is None
    assert only([an_orphan()], [], read_to=NOON + reach - 1).proposal is None


@pytest.mark.parametrize(
    ("holds", "rows"),
    [
        ([an_orphan(1), an_orphan(2)], [a_charge()]),
        ([an_orphan(1)], [a_charge(1), a_charge(2)]),
        ([an_orphan(1)], [a_charge(micros=PRICE + 2)]),
        ([an_orphan(1), a_hold(2, upstream_id=None, relay_request_id=None)], [a_charge()]),
    ],
)
def test_what_is_ambiguous_is_left_to_a_person(holds: list[OurHold], rows: list[BillRow]) -> None:
    findings = found(holds, rows)
    for one in findings:
        if one.kind == ORPHAN:
            assert one.proposal is None
            assert set(one.candidates) == set(rows)
    assert sum(one.kind == ONLY_THEIRS for one in findings) == len(rows)


def test_a_charge_that_another_video_explains_is_no_candidate() -> None:
    orphan = next(
        one for one in found([an_orphan(), a_hold(2)], [a_charge(2)]) if one.kind == ORPHAN
    )
    assert orphan.candidates == ()
    assert orphan.proposal is not None
    assert orphan.proposal.weak


MODELS = st.sampled_from(["sora-2", "grok"])
IDS = st.sampled_from([None, *(f"video_upstream_{number}" for number in range(4)), "odd / id 1234"])
REQUESTS = st.sampled_from([None, *(f"relay_{number}" for number in range(4))])
AMOUNTS = st.sampled_from([0, PRICE, 2 * PRICE])
TIMES = st.integers(-2 * WINDOW_SECONDS, 2 * WINDOW_SECONDS).map(lambda ago: NOON + ago)


@st.composite
def some_holds(draw: st.DrawFn) -> list[OurHold]:
    states = st.sampled_from(["held", "settled", "released", "orphaned", "refused"])
    holds = []
    for number in range(draw(st.integers(0, 6))):
        state = draw(states)
        facts: dict[str, Any] = {
            "upstream_id": draw(IDS),
            "model": draw(MODELS),
            "created_at": draw(TIMES),
            "state": {"orphaned": "held", "refused": "released"}.get(state, state),
            "held_micros": draw(AMOUNTS),
            "settled_micros": draw(AMOUNTS) if state == "settled" else 0,
            "orphaned": state == "orphaned",
            "refused": state == "refused",
            "relay_request_id": draw(REQUESTS),
            "provider_request_id": draw(REQUESTS),
        }
        holds.append(a_hold(number, **facts))
    return holds


some_rows = st.lists(
    st.builds(
        lambda kind, micros, number, **facts: a_charge(
            number, kind=kind, micros=-abs(micros) if kind == REFUND else micros, **facts
        ),
        kind=st.sampled_from([CHARGE, CHARGE, REFUND]),
        micros=st.sampled_from([PRICE, 2 * PRICE, -PRICE // 2]),
        number=st.integers(0, 50),
        created_at=TIMES,
        model=MODELS,
        upstream_id=IDS,
        request_id=REQUESTS,
        content=IDS.map(lambda name: f"任务ID: {name}" if name else ""),
    ),
    max_size=8,
)


@settings(max_examples=400, deadline=None)
@given(some_holds(), some_rows, st.randoms(use_true_random=False))
def test_every_hold_and_row_ends_once_and_the_sums_add_up(
    holds: list[OurHold], rows: list[BillRow], chance: Any
) -> None:
    findings = found(holds, rows)
    assert Counter(one.hold.hold_id for one in findings if one.hold) == Counter(
        hold.hold_id for hold in holds
    )
    assert Counter(row for one in findings for row in one.rows) == Counter(rows)
    assert sum(one.theirs_micros for one in findings) == sum(row.micros for row in rows)
    assert sum(one.ours_micros for one in findings) == sum(hold.settled_micros for hold in holds)
    for one in findings:
        assert (one.hold is None) == (one.kind == ONLY_THEIRS)
        assert (one.kind == ORPHAN) == (one.hold is not None and one.hold.orphaned)
        assert (one.proposal is not None or bool(one.note)) == (one.kind == ORPHAN)
        _check_pair(one)
        _check_proposal(one)
    shuffled = found(chance.sample(holds, len(holds)), chance.sample(rows, len(rows)))
    assert Counter(map(repr, shuffled)) == Counter(map(repr, findings))


def _check_pair(one: Finding) -> None:
    if one.matched_by == BY_AMOUNT:
        assert one.hold is not None
        charge = one.rows[0]
        assert (charge.model, charge.micros) == (one.hold.model, one.hold.held_micros)
        assert abs(charge.created_at - one.hold.created_at) <= WINDOW_SECONDS
        assert not one.hold.refused


def _check_proposal(one: Finding) -> None:
    if one.proposal is None:
        return
    assert not one.candidates
    assert one.proposal.weak == (one.rows == ())
    if one.proposal.action == SETTLE:
        assert one.proposal.amount_micros == one.theirs_micros > 0
    else:
        assert one.proposal.amount_micros is None
        assert one.theirs_micros == 0
