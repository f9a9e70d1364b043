"""What does an alert say, and to whom? Pure.

An alert rings once per threshold and period. Its words are made of the outbox row alone, so every
repeat of a delivery says the same under the same id, and a receiver can drop it.

| part     | where it goes                                                                     |
|----------|-----------------------------------------------------------------------------------|
| subject  | one line of printable characters, whatever names and prefix hold                  |
| text     | the mail, in plain text                                                           |
| event    | the body of the webhook, in the form of OpenAI's events; dollars are strings      |
"""

import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from gateway.billing.money import format_usd

EVENT_TYPE: Final = "spend_alert.crossed"
# A prefix or a name is shown up to here: a subject line stays one that mail programs show.
SHOWN_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold that settled spend has crossed.

    Attributes:
        id: of the delivery; the same in every repeat.
        name: of the project or key; `organization` for the organization.
        period_start: a UTC date, or `all`.
        spent_micros: settled spend at the moment of crossing.
        limit_micros: the budget of that level and period then, if there was one.
    """

    id: str
    alert_id: str
    level: str
    level_id: str
    name: str
    period: str
    period_start: str
    threshold_micros: int
    spent_micros: int
    limit_micros: int | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Email:
    """Deliver by mail."""

    recipients: tuple[str, ...]
    subject_prefix: str | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Deliver by a POST to a URL."""

    url: str


Channel: TypeAlias = Email | Webhook


def read_channel(text: str) -> Channel:
    """Return the channel that an outbox row names.

    Raises:
        ValueError: it is none that this program knows.
    """
    match json.loads(text):
        case {"type": "email", "recipients": [*recipients], **rest} if _texts(recipients):
            prefix = rest.get("subject_prefix")
            if prefix is None or isinstance(prefix, str):
                return Email(recipients=tuple(recipients), subject_prefix=prefix)
        case {"type": "webhook", "url": str(url)}:
            return Webhook(url=url)
    raise ValueError("no such channel")


def subject(crossing: Crossing, *, prefix: str | None) -> str:
    """Return the subject of the mail: one line, without control characters."""
    words = (
        f"Spend alert: {_whose(crossing)} reached {format_usd(crossing.threshold_micros)} USD"
        f" {_when(crossing)}"
    )
    return f"{one_line(prefix or '')} {words}".strip()


def text(crossing: Crossing) -> str:
    """Return the text of the mail."""
    limit = crossing.limit_micros
    budget = "none" if limit is None else f"{format_usd(limit)} USD"
    return (
        f"Settled spend of {_whose(crossing)} has reached a threshold.\n"
        "\n"
        f"Period:     {crossing.period}, {_when(crossing)} (UTC)\n"
        f"Threshold:  {format_usd(crossing.threshold_micros)} USD\n"
        f"Spent:      {format_usd(crossing.spent_micros)} USD\n"
        f"Budget:     {budget}\n"
        "\n"
        f"Id:         {one_line(crossing.level_id)}\n"
        f"Alert:      {one_line(crossing.alert_id)}\n"
        f"Delivery:   {one_line(crossing.id)}\n"
        "\n"
        "An alert only tells: requests are refused by budgets.\n"
    )


def event(crossing: Crossing) -> bytes:
    """Return the body of the webhook: JSON in UTF-8, the same bytes in every repeat."""
    limit = crossing.limit_micros
    body: dict[str, Any] = {
        "id": crossing.id,
        "object": "event",
        "created_at": crossing.created_at,
        "type": EVENT_TYPE,
        "data": {
            "alert_id": crossing.alert_id,
            "level": crossing.level,
            "id": crossing.level_id,
            "name": crossing.name,
            "period": crossing.period,
            "period_start": crossing.period_start,
            "threshold_usd": format_usd(crossing.threshold_micros),
            "spent_usd": format_usd(crossing.spent_micros),
            "limit_usd": None if limit is None else format_usd(limit),
        },
    }
    return json.dumps(body, separators=(",", ":")).encode()


def one_line(words: str) -> str:
    """Return words as one line of printable characters, cut off where it is too long.

    Whatever might end a header line (CR, LF, and all that Python or a mail program takes for a
    line's end) or turn the direction of writing is no printable character. Python also decodes an
    encoded word (RFC 2047) that stands in a header's text, line ends and all, and writes the header
    with them: without `=?` there is none.
    """
    printable = "".join(one if one.isprintable() else " " for one in words).replace("=?", "= ?")
    return " ".join(printable.split())[:SHOWN_CHARACTERS].rstrip()


def _texts(values: list[object]) -> bool:
    return all(isinstance(one, str) for one in values)


def _whose(crossing: Crossing) -> str:
    if crossing.level == "organization":
        return "the organization"
    return f"{crossing.level} {one_line(crossing.name)}"


def _when(crossing: Crossing) -> str:
    match crossing.period:
        case "day":
            return f"on {crossing.period_start}"
        case "month":
            return f"in {crossing.period_start[: len('2026-11')]}"
    return "in total"
