"""What does a request's body say, whichever way it is encoded?

JSON and multipart become the same two things: fields and files. Names with brackets, as the SDKs
send nested objects in multipart, become nested fields.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.formparsers import MultiPartException
from starlette.requests import Request

from gateway.simulator.answers import RefusedError, openai_error
from gateway.simulator.uploads import Upload

LARGEST_BODY_BYTES = 256 * 1024 * 1024
LARGEST_TEXT_PART_BYTES = 32 * 1024 * 1024
MOST_PARTS = 64

_BRACKETS = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body.

    Attributes:
        encoding: "json" or "multipart".
        fields: values by name; text only where the encoding is multipart.
        files: uploads by name.
    """

    encoding: str
    fields: Mapping[str, Any]
    files: Mapping[str, Upload]


async def read_body(request: Request) -> Body:
    """Return the whole body; a length need not be declared.

    Raises:
        RefusedError: it is neither a JSON object nor multipart, or is too large.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > LARGEST_BODY_BYTES:
        raise RefusedError(openai_error("The request is too large.", status=413))
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        return await _read_multipart(request)
    if content_type == "application/json":
        return _read_json(await request.body())
    message = f"Unsupported content type: '{content_type}'."
    raise RefusedError(openai_error(message, code="unsupported_content_type"))


def _read_json(data: bytes) -> Body:
    try:
        fields = json.loads(data)
    except ValueError as error:
        message = "We could not parse the JSON body of your request."
        raise RefusedError(openai_error(message)) from error
    if not isinstance(fields, dict):
        raise RefusedError(openai_error("The body must be a JSON object."))
    return Body("json", fields, {})


async def _read_multipart(request: Request) -> Body:
    fields: dict[str, Any] = {}
    files: dict[str, Upload] = {}
    try:
        async with request.form(
            max_files=MOST_PARTS, max_fields=MOST_PARTS, max_part_size=LARGEST_TEXT_PART_BYTES
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    _put(fields, name, value)
                else:
                    declared = value.content_type or "application/octet-stream"
                    files[name] = Upload(value.filename or "", declared, await value.read())
    except MultiPartException as error:
        raise RefusedError(openai_error(f"Invalid multipart body: {error.message}")) from error
    return Body("multipart", fields, files)


def _put(fields: dict[str, Any], name: str, value: str) -> None:
    stem, keys = name.split("[", 1)[0], _BRACKETS.findall(name)
    if not keys:
        fields[stem] = value
        return
    held = fields.setdefault(stem, [] if keys[0] == "" else {})
    if isinstance(held, list):
        held.append({keys[1]: value} if keys[1:] else value)
    elif isinstance(held, dict):
        held[keys[0]] = value
    else:
        raise RefusedError(openai_error(f"Invalid parameter: '{name}'", param=stem))
