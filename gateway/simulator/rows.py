"""What is one row of the account's log?"""

from dataclasses import dataclass

CHARGE = 2
REFUND = 11


@dataclass(frozen=True, slots=True)
class LogRow:
    """One charge or refund.

    Attributes:
        type: CHARGE or REFUND.
        created_at: Unix seconds.
        model: the model billed.
        micros: negative where it is given back.
        task_id: the video, "" where the log does not know.
        request_id: the submit's `X-Shellapi-Request-Id`; a refund has none.
    """

    type: int
    created_at: int
    model: str
    micros: int
    task_id: str
    request_id: str
