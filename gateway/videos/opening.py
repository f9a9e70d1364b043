"""What is written down before anything is forwarded?

One script, one transaction: the key, earlier attempts and the limits are looked at, the hold is
taken and the video's row written, or nothing at all. The row is due when its lease ends: so a
submit that died is found. Its outcome is written down by records.py.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing.balances import Account, accounting_day
from gateway.billing.ledger import Hold
from gateway.billing.money import Basis
from gateway.billing.usable_keys import Key, usable
from gateway.db.script import Script, Sql
from gateway.errors import InvalidApiKey
from gateway.videos.admission import Admitted, admit
from gateway.videos.attempts import Earlier, Intent, find_earlier, write_attempt
from gateway.videos.lifecycle import QUEUED
from gateway.videos.order import Order

WRONG_KEY: Final = (
    "Incorrect API key provided. A virtual key (vgk_…) opens /v1/videos, an admin key (vga_…)"
    " /v1/organization; whoever runs this gateway makes them."
)


@dataclass(frozen=True, slots=True)
class Submit:
    """A submit about to begin: the row that is written before anything leaves.

    Attributes:
        value_sha256: of the key value that it came with, which must still be in force.
        traceparent: of the span that buys it, for whatever is done about the video later.
    """

    video_id: str
    intent: Intent
    hold: Hold
    upstream: str
    kind: str
    fields: dict[str, str]
    lease_ends_at: int
    value_sha256: str | None = None
    traceparent: str | None = None

    @property
    def log_facts(self) -> dict[str, Any]:
        """What the log says it is about."""
        account = self.hold.account
        return {
            "video_id": self.video_id,
            "project_id": account.project_id,
            "key_id": account.key_id,
            "upstream": self.upstream,
            "held_micros": self.hold.amount_micros,
        }


def submit_of(
    order: Order,
    *,
    key: Key,
    video_id: str,
    hold_id: str,
    intent: Intent,
    upstream: str,
    basis: Basis,
    rate_card_sha256: str,
    lease_seconds: int,
    traceparent: str | None,
    now: int,
) -> Submit:
    """Return the submit of an order by a key, with a hold of the order's price."""
    hold = Hold(
        id=hold_id,
        account=Account(key.project_id, key.id, accounting_day(now)),
        operation=order.operation,
        model="" if order.model is None else order.model.id,
        size=order.size,
        clip_seconds=order.clip_seconds,
        unit=order.rate.unit,
        rate_micros=order.rate.micros,
        rate_card_sha256=rate_card_sha256,
        images_micros=order.images_micros,
        moderated_is_billed=order.model is not None and order.model.moderated_is_billed,
        list_micros=order.price_micros,
        basis=basis,
    )
    return Submit(
        video_id=video_id,
        intent=intent,
        hold=hold,
        upstream=upstream,
        kind=order.kind,
        fields=dict(order.shown),
        lease_ends_at=now + lease_seconds,
        value_sha256=key.value_sha256,
        traceparent=traceparent,
    )


def open_submit(submit: Submit, *, now: int) -> Script[Admitted | Earlier]:
    """Take the hold and write the video's row; return how the limits then stand.

    Where an earlier attempt answers for this one it is returned instead, and nothing is written.

    Raises:
        InvalidApiKey: the key has lost its access since it was looked up.
        IdempotencyKeyReused: the idempotency key was used for other fields.
        admission.NOT_ADMITTED: a budget, a limit or a permission is against it.
    """
    account = submit.hold.account
    if not (yield from usable(key_id=account.key_id, value_sha256=submit.value_sha256, now=now)):
        raise InvalidApiKey(WRONG_KEY)
    earlier = yield from find_earlier(
        submit.intent,
        video_id=submit.video_id,
        project_id=account.project_id,
        key_id=account.key_id,
        now=now,
    )
    if earlier is not None:
        return earlier
    admitted = yield from admit(submit.hold, now=now)
    yield Sql(
        "INSERT INTO videos (id, hold_id, project_id, key_id, upstream, kind, fields, status,"
        " created_at, submit_lease_ends_at, missing_polls, due_at, claim_number, traceparent)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $10, 0, $11)"
        " ON CONFLICT DO NOTHING",
        (
            submit.video_id,
            submit.hold.id,
            account.project_id,
            account.key_id,
            submit.upstream,
            submit.kind,
            json.dumps(submit.fields, ensure_ascii=False),
            QUEUED,
            now,
            submit.lease_ends_at,
            submit.traceparent,
        ),
    )
    yield from write_attempt(
        submit.intent,
        video_id=submit.video_id,
        project_id=account.project_id,
        key_id=account.key_id,
        now=now,
    )
    return admitted
