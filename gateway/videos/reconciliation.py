"""Is what the upstream bills what we hold and settle? Pure.

matching.py brings a hold together with the charge and the refunds that belong to it. Then each is
one finding:

| finding    | ours                       | theirs             | a difference                      |
|------------|----------------------------|--------------------|-----------------------------------|
| equal      | settled or released        | the same amount    |                                   |
| nothing    | nothing was spent          | no row             |                                   |
| under_way  | held, the video goes on    | whatever is there  |                                   |
| different  | settled or released        | another amount     | yes                               |
| only_ours  | settled                    | no row             | yes                               |
| only_theirs| no hold                    | charged            | yes                               |
| orphan     | held, the outcome unknown  | whatever is there  | yes: with a proposal, or a reason |

Every hold and every row ends in exactly one finding. Amounts are list prices. A proposal is only
printed: a person carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.upstream.bill import BillRow
from gateway.videos.matching import (
    BY_AMOUNT,
    BY_REQUEST,
    BY_VIDEO,
    WINDOW_SECONDS,
    Match,
    OurHold,
    given_twice,
    join_refunds,
    match_amounts,
    match_ids,
    total_micros,
)

MARGIN_SECONDS: Final = 3_600
"""That nothing was charged is only said where the bill was read so far beyond the window."""

EQUAL: Final = "equal"
NOTHING: Final = "nothing"
UNDER_WAY: Final = "under_way"
DIFFERENT: Final = "different"
ONLY_OURS: Final = "only_ours"
ONLY_THEIRS: Final = "only_theirs"
ORPHAN: Final = "orphan"
KINDS: Final = (EQUAL, NOTHING, UNDER_WAY, DIFFERENT, ONLY_OURS, ONLY_THEIRS, ORPHAN)
DIFFERENCES: Final = frozenset({DIFFERENT, ONLY_OURS, ONLY_THEIRS, ORPHAN})

SETTLE: Final = "settle"
RELEASE: Final = "release"

_HOW: Final = {
    BY_REQUEST: "by the id of the submit",
    BY_VIDEO: "by the id of the video",
    BY_AMOUNT: "by model, amount and time alone",
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a person may do about an orphan, and why.

    Attributes:
        action: SETTLE or RELEASE.
        amount_micros: what to settle.
        upstream_id: which of the upstream's videos it is, where that is not known here yet.
        weak: the evidence is that there is none.
        evidence: one sentence.
    """

    action: str
    amount_micros: int | None
    upstream_id: str | None
    weak: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One purchase as both sides have it.

    Attributes:
        kind: one of KINDS.
        hold: ours, None of ONLY_THEIRS.
        rows: theirs, charges first.
        matched_by: BY_REQUEST, BY_VIDEO or BY_AMOUNT, None where one side is missing.
        candidates: rows of other findings that may belong to this orphan.
        proposal: of an orphan.
        note: of an orphan without a proposal: why there is none.
    """

    kind: str
    hold: OurHold | None
    rows: tuple[BillRow, ...]
    matched_by: str | None = None
    candidates: tuple[BillRow, ...] = ()
    proposal: Proposal | None = None
    note: str = ""

    @property
    def at(self) -> int:
        """When it was bought: the time that counts."""
        return self.rows[0].created_at if self.hold is None else self.hold.created_at

    @property
    def ours_micros(self) -> int:
        """What we have spent on it."""
        return 0 if self.hold is None else self.hold.settled_micros

    @property
    def theirs_micros(self) -> int:
        """What they have charged, less what they gave back."""
        return total_micros(self.rows)


def reconcile(
    holds: Sequence[OurHold], rows: Sequence[BillRow], *, read_from: int, read_to: int
) -> list[Finding]:
    """Return one finding per hold, and one per purchase that has no hold; oldest first.

    `read_from` and `read_to` are the first and the last second of the bill that was read.
    """
    matches, loose = match_ids(holds, rows)
    purchases = join_refunds(loose)
    pairs, near = match_amounts([one for one in holds if one.hold_id not in matches], purchases)
    for hold_id, place in pairs.items():
        matches[hold_id] = Match(BY_AMOUNT, purchases[place])
    left = set(range(len(purchases))) - set(pairs.values())
    twice = given_twice(rows)
    known = {hold.upstream_id for hold in holds}
    findings = []
    for hold in holds:
        match = matches.get(hold.hold_id, Match(None, []))
        if hold.orphaned:
            choices = [purchases[place] for place in near.get(hold.hold_id, ()) if place in left]
            covered = _covered(hold, read_from=read_from, read_to=read_to)
            found = _orphan(hold, match, choices, covered=covered, twice=twice, known=known)
        else:
            found = Finding(_kind(hold, match.rows), hold, tuple(match.rows), match.how)
        findings.append(found)
    findings += [Finding(ONLY_THEIRS, None, tuple(purchases[place])) for place in sorted(left)]
    return sorted(findings, key=lambda one: (one.at, one.hold.video_id if one.hold else ""))


def _covered(hold: OurHold, *, read_from: int, read_to: int) -> bool:
    reach = WINDOW_SECONDS + MARGIN_SECONDS
    return read_from <= hold.created_at - reach and hold.created_at + reach <= read_to


def _kind(hold: OurHold, rows: Sequence[BillRow]) -> str:
    if hold.state == "held":
        return UNDER_WAY
    if rows:
        return EQUAL if total_micros(rows) == hold.settled_micros else DIFFERENT
    return ONLY_OURS if hold.settled_micros else NOTHING


def _orphan(
    hold: OurHold,
    match: Match,
    choices: Sequence[Sequence[BillRow]],
    *,
    covered: bool,
    twice: set[str],
    known: set[str | None],
) -> Finding:
    """Return an orphan with a proposal, or with the reason why there is none."""
    rows = tuple(match.rows)
    proposal, note = None, ""
    if not rows and choices:
        note = "Charges of its model and time that no other video explains: which, is not certain."
    elif not rows and not covered:
        note = "No charge was found, but the bill does not reach an hour beyond its time yet."
    elif not rows:
        evidence = "Nothing of its model was charged around its time."
        proposal = Proposal(RELEASE, None, None, weak=True, evidence=evidence)
    elif any(row.upstream_id in twice for row in rows):
        note = "Its video's id was charged more than once, and given back: for which, is unknown."
    elif total_micros(rows) < 0:
        note = "More was given back than was charged."
    else:
        proposal = _evident(hold, match, known=known)
    return Finding(
        ORPHAN,
        hold,
        rows,
        match.how,
        candidates=tuple(row for purchase in choices for row in purchase) if not rows else (),
        proposal=proposal,
        note=note,
    )


def _evident(hold: OurHold, match: Match, *, known: set[str | None]) -> Proposal:
    how = _HOW[match.how or BY_AMOUNT]
    charged = total_micros(match.rows)
    if charged == 0:
        evidence = f"It was charged and given back (found {how})."
        return Proposal(RELEASE, None, None, weak=False, evidence=evidence)
    ids = {row.upstream_id for row in match.rows if row.upstream_id} - known
    return Proposal(
        SETTLE,
        charged,
        next(iter(ids)) if hold.upstream_id is None and len(ids) == 1 else None,
        weak=False,
        evidence=f"It was charged and not given back (found {how}).",
    )
