"""Which rows of the upstream's bill belong to which of our holds? Pure.

Ours is a hold; theirs is a charge, written when a submit is accepted, and the refunds that follow.
They are brought together in this order:

1. the relay's (or the provider's) id of the submit stands on both sides;
2. so does the video's id, in a field of the row or within its words;
3. what is left on both sides has the same model and the same list price within WINDOW_SECONDS, no
   id contradicts, and neither has another partner: ambiguity is never resolved by a guess. Submits
   that the upstream refused take no part: they were not executed.

The submit's id comes first because it is the more exact one: an upstream can give one video's id
to two submits. A refund has no submit's id; it joins the charge that names its video.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.upstream.bill import CHARGE, REFUND, BillRow

WINDOW_SECONDS: Final = 300

BY_REQUEST: Final = "request_id"
BY_VIDEO: Final = "upstream_id"
BY_AMOUNT: Final = "amount_and_time"

# A short id may be any number in a row's words.
_SHORTEST_ID_IN_WORDS: Final = 8
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class OurHold:
    """One hold as the ledger has it, at list price.

    Attributes:
        video_id: ours, vid_….
        state: held, settled or released.
        held_micros: what was set aside.
        settled_micros: what was spent on it in all, corrections included.
        orphaned: its outcome is unknown now.
        refused: the upstream said no, or nothing was sent to it.
    """

    hold_id: str
    video_id: str
    upstream_id: str | None
    model: str
    operation: str
    created_at: int
    ended_at: int | None
    state: str
    held_micros: int
    settled_micros: int
    orphaned: bool
    refused: bool
    relay_request_id: str | None
    provider_request_id: str | None


@dataclass(slots=True)
class Match:
    """The rows of one hold, charges first; `how` is a BY_… or None where there are none."""

    how: str | None
    rows: list[BillRow]


def match_ids(
    holds: Sequence[OurHold], rows: Sequence[BillRow]
) -> tuple[dict[str, Match], list[BillRow]]:
    """Return what ids bring together, by hold id, and the rows that are left.

    Charges come first, then what was given back; each oldest first.
    """
    requests = _unambiguous(
        [(hold.relay_request_id, hold) for hold in holds]
        + [(hold.provider_request_id, hold) for hold in holds]
    )
    videos = _unambiguous([(hold.upstream_id, hold) for hold in holds])
    odd = [one for one in videos if len(one) >= _SHORTEST_ID_IN_WORDS and not _WORD.fullmatch(one)]
    matches: dict[str, Match] = {}
    charged: dict[str, Match] = {}
    loose = []
    # Charges first: a refund may find its hold only through the charge that names the same video.
    for row in sorted(rows, key=_order):
        how, hold = BY_REQUEST, requests.get(row.request_id or "")
        if hold is None:
            how, hold = BY_VIDEO, videos.get(row.upstream_id or "")
        if hold is None:
            hold = _named(row.content, videos=videos, odd=odd)
        if hold is not None:
            match = matches.setdefault(hold.hold_id, Match(how, []))
            match.rows.append(row)
            if row.upstream_id is not None:
                charged.setdefault(row.upstream_id, match)
        elif row.upstream_id in charged and not _is_charge(row):
            charged[row.upstream_id].rows.append(row)
        else:
            loose.append(row)
    return matches, loose


def _unambiguous(pairs: Iterable[tuple[str | None, OurHold]]) -> dict[str, OurHold]:
    """Return holds by an id, but not those that share one."""
    found: dict[str, OurHold] = {}
    shared = set()
    for name, hold in pairs:
        if name and found.setdefault(name, hold).hold_id != hold.hold_id:
            shared.add(name)
    return {name: hold for name, hold in found.items() if name not in shared}


def _named(words: str, *, videos: Mapping[str, OurHold], odd: Sequence[str]) -> OurHold | None:
    """Return the hold whose video's id stands within a row's words."""
    for word in _WORD.findall(words):
        if len(word) >= _SHORTEST_ID_IN_WORDS and word in videos:
            return videos[word]
    return next((videos[one] for one in odd if one in words), None)


def join_refunds(rows: Sequence[BillRow]) -> list[list[BillRow]]:
    """Return charges, each with the refunds that name its video; a refund alone is one of its own.

    Where several charges name one video, a refund joins the oldest that it does not exceed.
    """
    purchases = [[row] for row in rows if _is_charge(row)]
    by_video: dict[str, list[list[BillRow]]] = defaultdict(list)
    for purchase in purchases:
        if purchase[0].upstream_id is not None:
            by_video[purchase[0].upstream_id].append(purchase)
    for row in rows:
        if _is_charge(row):
            continue
        choices = by_video.get(row.upstream_id or "", [])
        fitting = [one for one in choices if total_micros(one) + row.micros >= 0]
        if fitting:
            fitting[0].append(row)
        else:
            purchases.append([row])
    return purchases


def match_amounts(
    holds: Sequence[OurHold], purchases: Sequence[Sequence[BillRow]]
) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Return by hold id: the one purchase that it can only be; and all of its model and time."""
    by_model: dict[str, list[int]] = defaultdict(list)
    for place, purchase in enumerate(purchases):
        if purchase[0].micros > 0:
            by_model[purchase[0].model].append(place)
    times = {
        model: [purchases[place][0].created_at for place in places]
        for model, places in by_model.items()
    }
    near: dict[str, list[int]] = {}
    fitting: dict[str, list[int]] = {}
    for hold in holds:
        if hold.refused or hold.held_micros == 0 or hold.model not in times:
            continue
        begin = bisect_left(times[hold.model], hold.created_at - WINDOW_SECONDS)
        end = bisect_right(times[hold.model], hold.created_at + WINDOW_SECONDS)
        places = by_model[hold.model][begin:end]
        near[hold.hold_id] = [
            place for place in places if not _contradicts(hold, purchases[place][0])
        ]
        fitting[hold.hold_id] = [
            place for place in near[hold.hold_id] if purchases[place][0].micros == hold.held_micros
        ]
    wanted = Counter(place for places in fitting.values() for place in places)
    pairs = {
        hold_id: places[0]
        for hold_id, places in fitting.items()
        if len(places) == 1 and wanted[places[0]] == 1
    }
    return pairs, near


def _contradicts(hold: OurHold, charge: BillRow) -> bool:
    """Return whether both sides have an id of the same sort, and not the same one."""
    ids = (
        (hold.relay_request_id, charge.request_id),
        (hold.upstream_id, charge.upstream_id),
    )
    return any(ours and theirs and ours != theirs for ours, theirs in ids)


def given_twice(rows: Sequence[BillRow]) -> set[str]:
    """Return the ids that several charges name and a refund too: whose refund it is, is unknown."""
    charged = Counter(row.upstream_id for row in rows if _is_charge(row))
    refunded = {row.upstream_id for row in rows if row.kind == REFUND}
    return {name for name, count in charged.items() if name and count > 1 and name in refunded}


def _order(row: BillRow) -> tuple[bool, int, tuple[str, ...], int]:
    # Complete, so that the order in which the rows came changes nothing.
    ids = (row.request_id or "", row.upstream_id or "", row.row_id)
    return (
        not _is_charge(row),
        row.created_at,
        (*ids, row.kind, row.model, row.content),
        row.micros,
    )


def _is_charge(row: BillRow) -> bool:
    # A settlement that gives back a part is of the charges' kind, and negative.
    return row.kind == CHARGE and row.micros > 0


def total_micros(rows: Iterable[BillRow]) -> int:
    """Return what was charged, less what was given back."""
    return sum(row.micros for row in rows)
