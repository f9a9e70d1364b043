"""How is a reconciliation printed: as tables, as one JSON object, as CSV?"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import click

from gateway.billing.money import format_usd
from gateway.cli.common import moment, show, show_json
from gateway.cli.csv_text import csv_header, csv_rows
from gateway.upstream.bill import BillRow
from gateway.videos.matching import total_micros
from gateway.videos.reconciliation import (
    DIFFERENCES,
    DIFFERENT,
    EQUAL,
    KINDS,
    NOTHING,
    ONLY_OURS,
    ONLY_THEIRS,
    ORPHAN,
    SETTLE,
    UNDER_WAY,
    Finding,
    Proposal,
)

_PPM: Final = 1_000_000
_TITLES: Final[Mapping[str, str]] = {
    EQUAL: "Both sides have the same amount",
    NOTHING: "Nothing was spent, nothing charged",
    UNDER_WAY: "Still under way: no difference yet",
    DIFFERENT: "Both sides have it, with different amounts",
    ONLY_OURS: "Settled here, not charged there",
    ONLY_THEIRS: "Charged there, unknown here",
    ORPHAN: "Orphans: held here, the outcome unknown",
}
_LISTED: Final = tuple(kind for kind in KINDS if kind not in {EQUAL, NOTHING})
_COLUMNS: Final = (
    "video",
    "upstream_id",
    "request_id",
    "model",
    "operation",
    "state",
    "held_usd",
    "ours_usd",
    "theirs_usd",
    "matched_by",
    "created_at",
)


@dataclass(frozen=True, slots=True)
class Account:
    """What was compared: an upstream's account, from a day to a day, and when."""

    upstream: str
    url: str
    first: date
    last: date
    read_at: int


def show_tables(account: Account, findings: Sequence[Finding]) -> None:
    """Print a summary, then every finding that is not plainly in order, then what to do."""
    click.echo(
        f"{account.upstream} ({account.url}), {account.first} to {account.last}, list prices"
    )
    click.echo()
    rows = [{"finding": _TITLES[kind], **sums} for kind, sums in _kinds(findings).items()]
    rows.append({"finding": "All", **_sums(findings)})
    columns = ("finding", "count", "ours_usd", "theirs_usd", "difference_usd")
    show(rows, columns=columns, as_json=False, empty="")
    click.echo(f"\nTheir bill is {_ratio(findings) or 'no multiple'} times ours.")
    for kind in _LISTED:
        found = [one for one in findings if one.kind == kind]
        if found:
            click.echo(f"\n{_TITLES[kind]}:")
            shown = [{**_facts(one), "created_at": moment(one.at)} for one in found]
            show(shown, columns=_COLUMNS, as_json=False, empty="")
        if kind == ORPHAN:
            _show_proposals(found)
    if not any(one.kind in DIFFERENCES for one in findings):
        click.echo("\nEverything matches.")


def show_object(account: Account, findings: Sequence[Finding]) -> None:
    """Print one JSON object; `findings` holds all that are not plainly in order."""
    show_json(
        {
            "upstream": account.upstream,
            "account_url": account.url,
            "from": account.first.isoformat(),
            "to": account.last.isoformat(),
            "read_at": account.read_at,
            "matches": not any(one.kind in DIFFERENCES for one in findings),
            **_sums(findings),
            "ratio": _ratio(findings),
            "kinds": _kinds(findings),
            "findings": [
                {
                    "finding": one.kind,
                    **_facts(one),
                    "rows": [_row(row) for row in one.rows],
                    "candidates": [_row(row) for row in one.candidates],
                    "proposal": _proposal(one),
                    "note": one.note or None,
                }
                for one in findings
                if one.kind in _LISTED
            ],
        }
    )


def show_csv(account: Account, findings: Sequence[Finding]) -> None:
    """Print one line per finding that is not plainly in order, under a line of column names."""
    rows = []
    for one in findings:
        if one.kind in _LISTED:
            proposal = _proposal(one)
            more = {
                "upstream": account.upstream,
                "finding": one.kind,
                "proposal": proposal and proposal["command"],
                "note": proposal["evidence"] if proposal else one.note,
            }
            rows.append(_facts(one) | more)
    columns = ("upstream", "finding", *_COLUMNS, "proposal", "note")
    click.echo(csv_header(columns) + csv_rows(rows, columns=columns), nl=False)


def _show_proposals(orphans: Sequence[Finding]) -> None:
    for one in orphans:
        proposal = _proposal(one)
        if proposal is not None:
            weak = " This is weaker evidence." if proposal["weak"] else ""
            click.echo(f"\n{proposal['evidence']}{weak}\n  {proposal['command']}")
            continue
        click.echo(f"\n{one.hold.video_id if one.hold else ''}: {one.note}")
        for row in one.candidates:
            facts = _row(row)
            click.echo(
                f"  {moment(row.created_at)}  ${facts['amount_usd']}  {facts['row_id']}"
                f"  {facts['upstream_id'] or ''}"
            )


def _kinds(findings: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    return {kind: _sums([one for one in findings if one.kind == kind]) for kind in KINDS}


def _sums(findings: Sequence[Finding]) -> dict[str, Any]:
    ours = sum(one.ours_micros for one in findings)
    theirs = sum(one.theirs_micros for one in findings)
    return {
        "count": len(findings),
        "ours_usd": format_usd(ours),
        "theirs_usd": format_usd(theirs),
        "difference_usd": format_usd(theirs - ours),
    }


def _ratio(findings: Sequence[Finding]) -> str | None:
    """Return their sum divided by ours, to six decimals; None where ours is nothing."""
    ours = sum(one.ours_micros for one in findings)
    theirs = sum(one.theirs_micros for one in findings)
    if ours <= 0 or theirs < 0:
        return None
    whole, rest = divmod((theirs * _PPM * 2 + ours) // (ours * 2), _PPM)
    return f"{whole}.{rest:06d}"


def _facts(one: Finding) -> dict[str, Any]:
    hold = one.hold
    ids = next((row.upstream_id for row in one.rows if row.upstream_id), None)
    requests = next((row.request_id for row in one.rows if row.request_id), None)
    models = one.rows[0].model if one.rows else None
    return {
        "video": hold and hold.video_id,
        "upstream_id": (hold and hold.upstream_id) or ids,
        "request_id": (hold and hold.relay_request_id) or requests,
        "model": hold.model if hold else models,
        "operation": hold and hold.operation,
        "state": hold and hold.state,
        "held_usd": hold and format_usd(hold.held_micros),
        "ours_usd": hold and format_usd(hold.settled_micros),
        "theirs_usd": format_usd(total_micros(one.rows)) if one.rows else None,
        "matched_by": one.matched_by,
        "created_at": one.at,
    }


def _row(row: BillRow) -> dict[str, Any]:
    return {
        "row_id": row.row_id,
        "kind": row.kind,
        "created_at": row.created_at,
        "model": row.model,
        "amount_usd": format_usd(row.micros),
        "upstream_id": row.upstream_id,
        "request_id": row.request_id,
    }


def _proposal(one: Finding) -> dict[str, Any] | None:
    if one.proposal is None or one.hold is None:
        return None
    proposal = one.proposal
    amount = proposal.amount_micros
    return {
        "command": shlex.join(_words(proposal, one.hold.video_id)),
        "action": proposal.action,
        "amount_usd": None if amount is None else format_usd(amount),
        "upstream_id": proposal.upstream_id,
        "weak": proposal.weak,
        "evidence": proposal.evidence,
    }


def _words(proposal: Proposal, video_id: str) -> list[str]:
    words = ["video-gateway", "orphans", proposal.action, video_id]
    if proposal.action == SETTLE and proposal.amount_micros is not None:
        words += ["--amount", format_usd(proposal.amount_micros)]
    if proposal.upstream_id is not None:
        words += ["--upstream-id", proposal.upstream_id]
    return words
