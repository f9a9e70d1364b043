"""Which faults can be asked for, where, and how often?

In a prompt, `[[NAME]]` breaks the request that carries it; `[[OPERATION:NAME]]` breaks later
requests for the video it makes. `*N` limits it to N requests, a bare word is its value, `key=value`
an argument: `[[502]]`, `[[429 7]]`, `[[retrieve:404*2]]`, `[[content:slow 1000]]`,
`[[hang executed=0]]`. Several of one operation are used up in turn. The control endpoint takes
{"name", "operation", "times", "value", "video", "arguments"}; times null means always.
Operations: create list retrieve delete content remix edit extend create-character
retrieve-character models redirected account-user account-log account-tasks any.

| stage   | name (value)                    | what happens                                         |
|---------|---------------------------------|------------------------------------------------------|
| answer  | refuse flat 400 401 402 403 404 | that answer, nothing executed; bodies: answers.py    |
|         | 410 moderate moderate-403       | moderation at submit, as 400 and as 403              |
|         | unverified no-channel           | 403; 503 for a key without the group or billing mode |
|         | balance balance-403             | `insufficient_user_quota` in 429 and in 403          |
|         | balance-flat insufficient-quota | flat `quota_not_enough`; OpenAI's own 429            |
|         | 429 (Retry-After)               | with Retry-After, default 2                          |
|         | 500 502 503                     | HTML, nothing executed                               |
|         | 500- 502- 503-envelope          | an error envelope, nothing executed                  |
|         | 301 302 303 307 308 (Location)  | a redirect, nothing executed                         |
|         | 408 499 504 520                 | HTML, executed                                       |
|         | 500-executed                    | envelope `write_response_body_failed`, executed      |
|         | html empty garbage              | 200 without usable JSON, executed                    |
|         | answer (body) status=           | any status, any body; content_type=; not executed    |
| deliver | hang drop                       | executed; no answer ever; connection cut             |
|         | half-headers half-body          | executed; cut after the headers; in the middle       |
|         | truncate stall pause break      | content: see deliver.py; value: bytes sent (half)    |
|         | unsized cut                     | the same; cut: half, which ends as if it were whole  |
|         | slow (bytes/s) delay (seconds)  | paced body; answer held back                         |
|         | drop-early                      | control only: cut before the body is read            |
|         | mislabelled                     | account-log: the header says gzip, the body is plain |
| object  | set key= (value) unset (key)    | the JSON says otherwise; the value is read as JSON   |
|         | status (word) seconds (value)   | the same, of one key                                 |
|         | no-id no-seconds                | the same, without the key                            |
| content | relocate (path/origin/URL)      | content by redirect: other path, other origin, URL   |
| life    | id (slash dots query space      | the video gets a strange id, or this very one        |
|         | long control …)                 |                                                      |
|         | duplicate-id (id)               | executed, but answered with an id already given      |
|         | fail fail-bare (code)           | ends failed, with error / without                    |
|         | moderate-later                  | ends failed, code moderation_blocked                 |
|         | moderate-completed              | ends completed, error moderation_blocked, no content |
|         | stuck                           | stays in progress for ever                           |
|         | longer (seconds)                | makes and bills more seconds than were asked         |
|         | queue generation retention (s)  | how long each takes for this video                   |
|         | late (seconds) status=          | content not there for so long once completed (400)   |

Arguments of every fault: executed=0|1 (does the operation take place?), delay= seconds, cut= (so
many bytes pass for the whole), sized=0 (the length is not said, and the body comes in chunks).

What the account's log says is falsified from the control endpoint (steering.py), for good: log-drop
(no row of a video), log-change (another amount), log-add (a row that belongs to no video).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.simulator.answers import CANNED_NAMES

OPERATIONS = (
    "create",
    "list",
    "retrieve",
    "delete",
    "content",
    "remix",
    "edit",
    "extend",
    "create-character",
    "retrieve-character",
    "models",
    "account-user",
    "account-log",
    "account-tasks",
)
THIS_REQUEST = "submit"
_PLACES = frozenset({*OPERATIONS, "redirected", "any", THIS_REQUEST})

_DELIVER = (
    "hang drop half-headers half-body truncate stall pause break unsized cut slow delay"
    " drop-early mislabelled"
)
_OBJECT = "set unset status seconds no-id no-seconds"
_LIFE = (
    "id duplicate-id fail fail-bare moderate-later moderate-completed stuck longer "
    "queue generation retention late"
)
STAGES: Mapping[str, str] = {
    **dict.fromkeys((*CANNED_NAMES, "answer"), "answer"),
    **dict.fromkeys(_DELIVER.split(), "deliver"),
    **dict.fromkeys(_OBJECT.split(), "object"),
    **dict.fromkeys(("relocate",), "content"),
    **dict.fromkeys(_LIFE.split(), "life"),
}
_EXECUTED_ANSWERS = frozenset(
    {"408", "499", "504", "520", "500-executed", "html", "empty", "garbage"}
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_NUMERIC = frozenset(
    {"truncate", "stall", "pause", "break", "unsized", "cut", "slow", "delay", "longer"}
    | {"queue", "generation", "retention", "late"}
)
_DIRECTIVE = re.compile(r"\[\[(?:([a-z-]+):)?([0-9a-z-]+)(?:\*([0-9]+))?((?:\s[^\[\]]*)?)\]\]")


@dataclass(slots=True)
class Fault:
    """One fault that waits to be used.

    Attributes:
        name: a name of the table above.
        operation: which requests it breaks.
        times: how many more requests it breaks, None for all.
        value: the bare argument.
        arguments: the named ones.
        video: only requests for this video id, None for all.
    """

    name: str
    operation: str = THIS_REQUEST
    times: int | None = None
    value: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    video: str | None = None

    def __post_init__(self) -> None:
        """Refuse what the table does not hold: a misspelt fault would make a test pass.

        Raises:
            ValueError: naming what is unknown, or what should be a number.
        """
        if self.name not in STAGES:
            raise ValueError(f"no fault is called {self.name!r}")
        if self.operation not in _PLACES:
            raise ValueError(f"no operation is called {self.operation!r}")
        numbers = [self.arguments.get(name) for name in ("status", "delay", "cut")]
        for text in [*numbers, self.value if self.name in _NUMERIC else None]:
            if text is not None and _NUMBER.fullmatch(text) is None:
                raise ValueError(f"{text!r} is no number")

    @property
    def stage(self) -> str:
        """The stage at which it strikes: answer, deliver, object, content or life."""
        return STAGES[self.name]

    @property
    def executed(self) -> bool:
        """Whether the operation takes place although its answer is broken."""
        if "executed" in self.arguments:
            return self.arguments["executed"] not in {"0", "false"}
        return self.stage != "answer" or self.name in _EXECUTED_ANSWERS

    def number(self, *, default: float) -> float:
        """Return the value as a number."""
        return default if self.value is None else float(self.value)


def parse_directives(prompt: object) -> Iterator[Fault]:
    """Yield the faults that a prompt asks for; none if it is no string.

    Raises:
        ValueError: a directive names an unknown fault or operation.
    """
    if not isinstance(prompt, str) or "[[" not in prompt:
        return
    for operation, name, times, rest in _DIRECTIVE.findall(prompt):
        words = rest.split()
        yield Fault(
            name=name,
            operation=operation or THIS_REQUEST,
            times=int(times) if times else None,
            value=next((word for word in words if "=" not in word), None),
            arguments=dict(word.split("=", 1) for word in words if "=" in word),
        )


def take(faults: list[Fault], *, operation: str, video: str | None) -> Fault | None:
    """Return the first fault that breaks this request, counted down, or None."""
    for fault in faults:
        if fault.operation not in {operation, "any"}:
            continue
        if fault.video is not None and fault.video != video:
            continue
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                faults.remove(fault)
        return fault
    return None
