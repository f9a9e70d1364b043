"""Is this request one that we have had before? Scripts only.

Both official SDKs send a create up to twice more by themselves, after 408, 409, 429, 5xx and lost
connections, without an idempotency key. Two ways lead back to the first attempt:

- `Idempotency-Key`: within a project and for 24 hours, the same key with the same fields is the
  same intent; with other fields it is a mistake.
- `X-Stainless-Retry-Count` of 1 or more, without such a key: the same virtual key has sent the same
  fields shortly before. One attempt answers one retry of each count; first of all one whose client
  was gone before it was answered, else the newest.

An attempt whose hold was released bought nothing: it never answers for another, and frees its key.
The retry that it explains buys anew, even where the same fields were bought before it. So does the
retry of a request that was refused before it held anything, where that refusal invites one: it is
the next count of the one refused. A purchase ends all refusals of its own count and later, so that
whatever explains a retry of this purchase was refused after it: one given up long ago buys nothing.
"""

from dataclasses import dataclass
from typing import Final

from gateway.db.script import Row, Script, Sql
from gateway.errors import IdempotencyKeyReused

IDEMPOTENCY_SECONDS: Final = 24 * 3600
RETRY_MARGIN_SECONDS: Final = 180
RETRY_WINDOW_SECONDS: Final = 15 * 60
# Higher than any retry counts: an attempt with it answers for none.
_NO_RETRY_COUNT: Final = 2**31 - 1

_FACTS: Final = (
    "SELECT attempts.video_id, attempts.fields_sha256, attempts.answer, attempts.left_at,"
    " videos.orphaned_at, videos.refused_at, videos.submit_lease_ends_at,"
    " COALESCE(holds.settled_micros, holds.amount_micros) AS price_micros FROM attempts"
    " JOIN videos ON videos.id = attempts.video_id JOIN holds ON holds.id = videos.hold_id"
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a create says of itself.

    Attributes:
        fields_sha256: over the parsed parameters and the file.
        retry_count: what an SDK says of itself; 0 for a first attempt.
        is_first: whatever the count, the attempt it repeats bought nothing.
        window_seconds: how far back a retry looks for its first attempt.
    """

    fields_sha256: str
    idempotency_key: str | None = None
    retry_count: int = 0
    is_first: bool = False
    window_seconds: int = RETRY_WINDOW_SECONDS


@dataclass(frozen=True, slots=True)
class Earlier:
    """The attempt that answers for a request.

    Attributes:
        answer: the body of the first answer, or None while there is none.
        unknown: its outcome is unknown, or nobody is left who could find it out.
        refused: it bought nothing; the request is to be treated as the first.
        price_micros: what is held for it, or what it came to.
    """

    video_id: str
    answer: str | None
    unknown: bool
    refused: bool
    price_micros: int

    @property
    def over(self) -> bool:
        """Whether waiting longer would change nothing."""
        return self.answer is not None or self.unknown or self.refused


def find_earlier(
    intent: Intent, *, video_id: str, project_id: str, key_id: str, now: int
) -> Script[Earlier | None]:
    """Return the attempt that a request repeats, and claim it for this retry; None: a new one.

    A submit that has written its own attempt is a new one, and one that has claimed another's finds
    it again: the script may run twice whole.

    Raises:
        IdempotencyKeyReused: the key was used for other fields.
    """
    own = yield Sql("SELECT 1 AS own FROM attempts WHERE video_id = $1", (video_id,))
    if own:
        return None
    if intent.idempotency_key is not None:
        return (yield from _by_key(intent, project_id=project_id, now=now))
    if intent.retry_count > 0 and not intent.is_first:
        return (yield from _by_retry(intent, video_id=video_id, key_id=key_id, now=now))
    return None


def write_attempt(
    intent: Intent, *, video_id: str, project_id: str, key_id: str, now: int
) -> Script[None]:
    """Write down the attempt that is about to buy a video, in the transaction of its hold."""
    yield Sql(
        "DELETE FROM refused_attempts WHERE key_id = $1 AND fields_sha256 = $2"
        " AND retry_count >= $3",
        (key_id, intent.fields_sha256, intent.retry_count),
    )
    yield Sql(
        "INSERT INTO attempts (video_id, project_id, key_id, idempotency_key, fields_sha256,"
        " created_at, retry_count) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        (
            video_id,
            project_id,
            key_id,
            intent.idempotency_key,
            intent.fields_sha256,
            now,
            intent.retry_count,
        ),
    )


def write_refused(
    intent: Intent, *, refused_id: str, key_id: str, is_new: bool, now: int
) -> Script[None]:
    """Write down that a request was refused before it held anything, and may be sent again.

    Unless it `is_new`, nobody has looked for an earlier attempt: then a retry may repeat one that
    was bought, but for that of a refusal.
    """
    is_new = is_new or intent.retry_count == 0 or intent.is_first
    if not is_new and not (yield from _was_refused(intent, key_id=key_id, now=now)):
        return
    yield Sql(
        "INSERT INTO refused_attempts (id, key_id, fields_sha256, retry_count, created_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        (refused_id, key_id, intent.fields_sha256, intent.retry_count, now),
    )


def write_answer(video_id: str, answer: str) -> Script[None]:
    """Keep the first answer, in the transaction that records the upstream's id."""
    yield Sql(
        "UPDATE attempts SET answer = $2 WHERE video_id = $1 AND answer IS NULL",
        (video_id, answer),
    )


def free_key(video_id: str) -> Script[None]:
    """Let the idempotency key of a released attempt be used again.

    The attempt had a key, so it never answers for a retry without one.
    """
    yield Sql(
        "UPDATE attempts SET idempotency_key = NULL, retry_count = $2"
        " WHERE video_id = $1 AND idempotency_key IS NOT NULL",
        (video_id, _NO_RETRY_COUNT),
    )


def write_left(video_id: str, *, now: int) -> Script[None]:
    """Write down that the client of an attempt was gone before it was answered."""
    yield Sql("UPDATE attempts SET left_at = $2 WHERE video_id = $1", (video_id, now))


def look_again(video_id: str, *, now: int) -> Script[Earlier]:
    """Return how an earlier attempt stands now."""
    (row,) = yield Sql(f"{_FACTS} WHERE attempts.video_id = $1", (video_id,))
    return _earlier(row, now=now)


def forget_old(*, now: int) -> Script[int]:
    """Remove attempts that can answer for nothing any more; return how many."""
    yield Sql("DELETE FROM refused_attempts WHERE created_at < $1", (now - IDEMPOTENCY_SECONDS,))
    rows = yield Sql(
        "DELETE FROM attempts WHERE created_at < $1 RETURNING video_id",
        (now - IDEMPOTENCY_SECONDS,),
    )
    return len(rows)


def _by_key(intent: Intent, *, project_id: str, now: int) -> Script[Earlier | None]:
    rows = yield Sql(
        f"{_FACTS} WHERE attempts.project_id = $1 AND attempts.idempotency_key = $2"
        " AND attempts.created_at > $3",
        (project_id, intent.idempotency_key, now - IDEMPOTENCY_SECONDS),
    )
    if not rows:
        # What is older than a day holds its key no longer.
        yield Sql(
            "UPDATE attempts SET idempotency_key = NULL, retry_count = $3 WHERE project_id = $1"
            " AND idempotency_key = $2 AND created_at <= $4",
            (project_id, intent.idempotency_key, _NO_RETRY_COUNT, now - IDEMPOTENCY_SECONDS),
        )
        return None
    if rows[0]["fields_sha256"] != intent.fields_sha256:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for a request with other parameters. Use a new key for"
            " a new request."
        )
    return _earlier(rows[0], now=now)


def _by_retry(intent: Intent, *, video_id: str, key_id: str, now: int) -> Script[Earlier | None]:
    claimed = yield Sql(f"{_FACTS} WHERE attempts.claimed_by = $1", (video_id,))
    if claimed:
        return _unless_refused(_earlier(claimed[0], now=now))
    if (yield from _was_refused(intent, key_id=key_id, now=now)):
        return None
    rows = yield Sql(
        f"{_FACTS} WHERE attempts.key_id = $1 AND attempts.fields_sha256 = $2"
        " AND attempts.created_at >= $3 AND attempts.retry_count < $4"
        " AND attempts.idempotency_key IS NULL"
        " ORDER BY CASE WHEN attempts.left_at IS NULL OR videos.refused_at IS NOT NULL"
        " THEN 1 ELSE 0 END, attempts.created_at DESC, attempts.video_id DESC LIMIT 1",
        (key_id, intent.fields_sha256, now - intent.window_seconds, intent.retry_count),
    )
    if not rows:
        return None
    yield Sql(
        "UPDATE attempts SET retry_count = $2, claimed_by = $3 WHERE video_id = $1",
        (rows[0]["video_id"], intent.retry_count, video_id),
    )
    return _unless_refused(_earlier(rows[0], now=now))


def _unless_refused(earlier: Earlier) -> Earlier | None:
    # What is sent again after a refusal is a purchase of its own, whatever was bought before it.
    return None if earlier.refused else earlier


def _was_refused(intent: Intent, *, key_id: str, now: int) -> Script[bool]:
    """Tell whether a retry repeats a request that was refused; each explains one retry."""
    rows = yield Sql(
        "DELETE FROM refused_attempts WHERE id IN (SELECT id FROM refused_attempts"
        " WHERE key_id = $1 AND fields_sha256 = $2 AND created_at >= $3 AND retry_count = $4"
        " ORDER BY created_at DESC, id DESC LIMIT 1) RETURNING id",
        (key_id, intent.fields_sha256, now - intent.window_seconds, intent.retry_count - 1),
    )
    return bool(rows)


def _earlier(row: Row, *, now: int) -> Earlier:
    answered = row["answer"] is not None
    return Earlier(
        video_id=row["video_id"],
        answer=row["answer"],
        unknown=not answered
        and (row["orphaned_at"] is not None or now > row["submit_lease_ends_at"]),
        refused=row["refused_at"] is not None,
        price_micros=row["price_micros"],
    )
