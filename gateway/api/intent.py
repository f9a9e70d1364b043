"""Is a billable request one that was meant before?"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import UploadFile
from starlette.requests import Request

from gateway.errors import InvalidRequest
from gateway.videos.attempts import RETRY_MARGIN_SECONDS, RETRY_WINDOW_SECONDS, Intent
from gateway.videos.order import Order

MAX_IDEMPOTENCY_CHARACTERS: Final = 255
_HASH_CHUNK_BYTES: Final = 1 << 20
_NUMBER_LIMIT: Final = 3600


def idempotency_key_of(request: Request) -> str | None:
    """Return the idempotency key of a request.

    Raises:
        InvalidRequest: it is empty or too long.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_CHARACTERS:
        raise InvalidRequest(
            f"'Idempotency-Key' must have 1 to {MAX_IDEMPOTENCY_CHARACTERS} characters.",
            param="Idempotency-Key",
        )
    return key


async def intent_of(
    request: Request,
    order: Order,
    *,
    files: Mapping[str, UploadFile],
    idempotency_key: str | None,
) -> Intent:
    """Return what a billable request says of itself: its idempotency key, or that it is a retry."""
    read_seconds = _number(request.headers, "x-stainless-read-timeout")
    retry_count = _number(request.headers, "x-stainless-retry-count") or 0
    # Each try before this one may have waited its whole read timeout.
    tries = max(1, retry_count)
    window = tries * RETRY_WINDOW_SECONDS
    if read_seconds is not None:
        window = tries * read_seconds + RETRY_MARGIN_SECONDS
    return Intent(
        fields_sha256=await _digest(order, files),
        idempotency_key=idempotency_key,
        retry_count=retry_count,
        window_seconds=window,
    )


def _number(headers: Mapping[str, str], name: str) -> int | None:
    with contextlib.suppress(ValueError):
        number = float(headers.get(name, ""))
        if number >= 0:
            return int(min(number, _NUMBER_LIMIT))
    return None


async def _digest(order: Order, files: Mapping[str, UploadFile]) -> str:
    # Parsed parameters and the file's bytes: the boundary of a form changes with every try.
    fields = {"operation": order.operation, "path": order.path, "fields": order.fields}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(files):
        digest.update(name.encode())
        await asyncio.to_thread(_digest_file, digest, files[name])
    return digest.hexdigest()


def _digest_file(digest: "hashlib._Hash", upload: UploadFile) -> None:
    upload.file.seek(0)
    while chunk := upload.file.read(_HASH_CHUNK_BYTES):
        digest.update(chunk)
