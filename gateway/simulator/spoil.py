"""What does a fault make of an answer?

Pure: an answer and a fault in, the broken answer out. How a broken manner then looks on the socket
is deliver.py's business; which faults there are is told in faults.py.
"""

import json
from dataclasses import replace
from typing import Any

from gateway.simulator.answers import JSON, Answer, canned, told
from gateway.simulator.faults import Fault

_MANNERS = {
    "hang": "hang",
    "drop": "drop",
    "drop-early": "drop",
    "half-headers": "headers",
    "half-body": "cut",
    "truncate": "cut",
    "stall": "stall",
    "pause": "pause",
    "break": "break",
    "unsized": "unsized",
}
_DEFAULT_PACE = 65_536
_ABSENT = object()


def spoil(answer: Answer, fault: Fault) -> Answer:
    """Return the answer as the fault breaks it; a "life" fault changes nothing here."""
    if "cut" in fault.arguments:
        answer = replace(answer, body=answer.body[: int(fault.arguments["cut"])])
    match fault.stage:
        case "answer":
            answer = _replacement(fault)
        case "deliver":
            answer = _in_manner(answer, fault)
        case "object" if answer.body and answer.content_type == JSON:
            answer = _edited(answer, fault)
        case _:
            pass
    if fault.arguments.get("sized") in {"0", "false"}:
        answer = replace(answer, sized=False)
    delay = fault.arguments.get("delay")
    return answer if delay is None else replace(answer, delay_seconds=float(delay))


def _replacement(fault: Fault) -> Answer:
    if fault.name != "answer":
        return canned(fault.name, value=fault.value)
    given = fault.arguments
    return Answer(
        status=int(given.get("status", 200)),
        body=(fault.value or "").encode(),
        content_type=given.get("content_type", JSON),
    )


def _in_manner(answer: Answer, fault: Fault) -> Answer:
    match fault.name:
        case "slow":
            return replace(answer, bytes_per_second=fault.number(default=_DEFAULT_PACE))
        case "mislabelled":
            return answer
        case "delay":
            return replace(answer, delay_seconds=fault.number(default=1))
        case "cut":
            return replace(answer, body=answer.body[: _sent_bytes(answer, fault)])
        case _:
            sent = _sent_bytes(answer, fault)
            return replace(answer, manner=_MANNERS[fault.name], sent_bytes=sent)


def _sent_bytes(answer: Answer, fault: Fault) -> int:
    return int(fault.number(default=len(answer.body) // 2))


def _edited(answer: Answer, fault: Fault) -> Answer:
    shown: dict[str, Any] = json.loads(answer.body)
    key, value = _edit(fault)
    shown.pop(key, None) if value is _ABSENT else shown.update({key: value})
    return replace(answer, body=told(shown).body)


def _edit(fault: Fault) -> tuple[str, Any]:
    match fault.name:
        case "no-id" | "no-seconds":
            return fault.name.removeprefix("no-"), _ABSENT
        case "status" | "seconds":
            return fault.name, fault.value
        case "unset":
            return fault.value or "", _ABSENT
        case _:
            return fault.arguments.get("key", ""), _value(fault.value)


def _value(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return text
