"""How is a request body read, once, and never over its limit?

JSON and multipart/form-data, with or without a length. A body over its limit is refused while it
streams; uploaded files are spooled to disk past a megabyte. Whatever the encoding, what comes out
is parameters by name and files by name.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gateway.errors import InvalidRequest, RequestTimeout, RequestTooLarge

MAX_FIELDS: Final = 64
MAX_FILES: Final = 4
_NESTED: Final = re.compile(r"([a-z_]{1,64})(\[\])?\[([a-z_]{1,64})\]")


@dataclass(frozen=True, slots=True)
class ReadBody:
    """A whole request body.

    Attributes:
        values: text of multipart fields, or JSON values.
        files: uploaded files, open and at their beginning.
    """

    values: dict[str, object]
    files: dict[str, UploadFile] = field(default_factory=dict)

    async def close(self) -> None:
        """Let go of the spooled files."""
        for file in self.files.values():
            await file.close()


async def read_body(request: Request, *, max_bytes: int, idle_seconds: float) -> ReadBody:
    """Read the body of a request.

    Raises:
        InvalidRequest: it is neither well-formed JSON nor well-formed multipart, or says a
            parameter twice.
        RequestTooLarge: it is longer than `max_bytes`; reading stopped there.
        RequestTimeout: nothing came for `idle_seconds`.
        starlette.requests.ClientDisconnect: the client left before the end.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    stream = _limited(request, max_bytes=max_bytes, idle_seconds=idle_seconds)
    if content_type == "multipart/form-data":
        return await _multipart(request, stream, max_bytes=max_bytes)
    if content_type == "application/json":
        return ReadBody(values=_json(b"".join([chunk async for chunk in stream])))
    if not content_type and not await anext(stream, b""):
        # A form without a field is sent as nothing at all: what is missing is then said by name.
        return ReadBody(values={})
    raise InvalidRequest(
        "The Content-Type must be application/json or multipart/form-data.",
        code="unsupported_content_type",
    )


async def _limited(
    request: Request, *, max_bytes: int, idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    stream = request.stream()
    size_bytes = 0
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise RequestTimeout(
                f"The request body stalled for {idle_seconds:g} seconds. Nothing was held."
            ) from error
        if chunk is None:
            return
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is longer than {max_bytes} bytes.")


async def _multipart(
    request: Request, stream: AsyncGenerator[bytes, None], *, max_bytes: int
) -> ReadBody:
    parser = _Form(
        request.headers,
        stream,
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=max_bytes,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _malformed(f"The multipart body is malformed: {error.message}") from error
    except (LookupError, ValueError) as error:
        raise _malformed("The multipart body is malformed.") from error
    body = ReadBody(values={})
    try:
        if not parser.ended:
            raise _malformed("The multipart body breaks off before its closing boundary.")
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name in body.files or name in body.values:
                    raise _twice(name)
                body.files[name] = value
            else:
                _keep_nested(body, name, value)
        _check_text([*body.values.items(), *body.files])
    except InvalidRequest:
        parser.close()
        raise
    return body


def _keep_nested(body: ReadBody, name: str, value: str) -> None:
    """Keep a text part; `video[id]` and `characters[][id]` are how SDKs write nested ones."""
    values = body.values
    nested = _NESTED.fullmatch(name)
    outer = name if nested is None else nested[1]
    if outer in body.files or (nested is None and name in values):
        raise _twice(outer)
    if nested is None:
        values[name] = value
        return
    _, listed, inner = nested.groups()
    kept = values.setdefault(outer, [] if listed else {})
    if listed and isinstance(kept, list):
        # A key that the last object has begins the next one.
        if not kept or inner in kept[-1]:
            kept.append({})
        kept[-1][inner] = value
    elif not listed and isinstance(kept, dict) and inner not in kept:
        kept[inner] = value
    else:
        raise _twice(outer)


class _Form(MultiPartParser):
    """Starlette's parser, but it passes over nothing in silence.

    Without a closing boundary the last part would be left out: the image, or the seconds. Text
    that is no UTF-8 would be read as Latin-1, and a garbled prompt bought.
    """

    ended = False

    def on_part_end(self) -> None:
        """Keep a part, if its text is what it says it is."""
        if self._current_part.file is None:
            try:
                self._current_part.data.decode(self._charset or "utf-8")
            except (UnicodeDecodeError, LookupError) as error:
                raise MultiPartException("a text part is not valid UTF-8") from error
        super().on_part_end()

    def on_end(self) -> None:
        """Note that the closing boundary came."""
        self.ended = True

    def close(self) -> None:
        """Let go of every file, also of one that broke off and belongs to no part."""
        for file in self._files_to_close_on_error:
            file.close()


def _json(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object)
        if b"\\u" in text:
            _check_text(value)
    except RecursionError as error:
        raise _malformed("The JSON body is nested too deeply.") from error
    except ValueError as error:
        raise _malformed(f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise _malformed("The JSON body must be an object.")
    return value


def _check_text(value: object) -> None:
    # JSON's escapes and some charsets can say half a surrogate pair, which no UTF-8 can carry on.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _malformed("The request body holds text that is not valid Unicode.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _twice(next(name for name in names if names.count(name) > 1))
    return found


def _twice(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Duplicate parameter: '{name}'. Send it once.", param=name, code="duplicate_parameter"
    )


def _malformed(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_body")
