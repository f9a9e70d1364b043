"""What do all requests to /v1/organization share?

An admin key, a small JSON body whose every field is checked, cursors in the query, and a change
that is written into the audit log in the transaction that makes it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.body import read_body
from gateway.api.edge import call
from gateway.api.names import is_name, part_of_path
from gateway.api.organization.checks import Check
from gateway.api.parts import Parts
from gateway.billing.audit_log import ADMIN_KEY, Change
from gateway.billing.projects import ProjectArchived
from gateway.db.paging import DEFAULT_LIMIT, MAX_LIMIT, Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest, NotFound

T = TypeVar("T")

MAX_BODY_BYTES: Final = 64 << 10
# A longer number is out of range without being read.
_LONGEST_NUMBER: Final = 18
# Of one repeated parameter: each is an argument of a statement.
MAX_VALUES: Final = 100
_ORDERS: Final = ("asc", "desc")


async def admin(parts: Parts, request: Request) -> str:
    """Return the id of the admin key that sends a request, and put it into its log line.

    Raises:
        InvalidApiKey: no admin key that may be used now.
    """
    key = await parts.authenticator.authenticate_admin(request.headers)
    call(request).facts["admin_key_id"] = key.id
    return key.id


async def change(
    parts: Parts, request: Request, admin_key_id: str, script: Callable[[Change], Script[T]]
) -> T:
    """Run a script that changes something, in force in this process when it returns.

    Raises:
        InvalidRequest: the project it is about was archived.
    """
    made = Change(
        id=parts.clock.new_id("audit_log"),
        now=parts.clock.now(),
        actor_kind=ADMIN_KEY,
        actor_id=admin_key_id,
        request_id=call(request).request_id,
    )
    try:
        return await parts.database.run(partial(script, made))
    except ProjectArchived as error:
        raise InvalidRequest(
            f"The project '{error}' is archived: nothing can be changed in it.",
            param="project_id",
            code="project_archived",
        ) from error
    finally:
        parts.authenticator.forget()


async def fields_of(
    request: Request,
    checks: Mapping[str, Check],
    *,
    required: Sequence[str] = (),
    nullable: Collection[str] = (),
) -> dict[str, Any]:
    """Return the checked fields of a JSON body, or of none at all.

    A field that is null counts as left out, except that one of `nullable` is then None.

    Raises:
        InvalidRequest: a field is unknown, missing, or not what its check wants.
    """
    if not _has_body(request):
        return checked({}, checks, required=required)
    body = await read_body(request, max_bytes=MAX_BODY_BYTES, idle_seconds=30)
    await body.close()
    # A file is no field that is known, and known fields are no files.
    return checked({**body.values, **body.files}, checks, required=required, nullable=nullable)


def checked(
    given: Mapping[str, Any],
    checks: Mapping[str, Check],
    *,
    required: Sequence[str] = (),
    nullable: Collection[str] = (),
    inside: str = "",
) -> dict[str, Any]:
    """Return the checked fields of an object; `inside` stands before their names in errors.

    Raises:
        InvalidRequest: as fields_of.
    """
    values = {name: value for name, value in given.items() if value is not None or name in nullable}
    for name in given:
        if name not in checks:
            raise InvalidRequest(
                f"Unknown parameter: '{inside}{name}'. Known are: {', '.join(checks) or 'none'}.",
                param=f"{inside}{name}",
                code="unknown_parameter",
            )
    for name in required:
        if name not in values:
            raise InvalidRequest(
                f"Missing required parameter: '{inside}{name}'.",
                param=f"{inside}{name}",
                code="missing_required_parameter",
            )
    return {
        name: None if value is None else _checked(f"{inside}{name}", checks[name], value)
        for name, value in values.items()
    }


def cursor_of(
    request: Request, *, default: int = DEFAULT_LIMIT, newest_first: bool = True
) -> Cursor:
    """Return which page the query asks for: limit, order, after, before."""
    order = request.query_params.get("order", "desc" if newest_first else "asc")
    if order not in _ORDERS:
        raise InvalidRequest(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order"
        )
    return Cursor(
        limit=number_of(request, "limit", least=0, most=MAX_LIMIT, default=default) or 0,
        newest_first=order == "desc",
        after=text_of(request, "after"),
        before=text_of(request, "before"),
    )


def text_of(request: Request, name: str) -> str | None:
    """Return a text of the query, which may be asked of a database."""
    text = request.query_params.get(name)
    return None if text is None else _a_name(name, text)


def number_of(
    request: Request, name: str, *, least: int, most: int, default: int | None
) -> int | None:
    """Return a whole number of the query."""
    text = request.query_params.get(name)
    if text is None:
        return default
    readable = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    if readable and least <= int(text) <= most:
        return int(text)
    raise InvalidRequest(
        f"Invalid '{name}': expected a whole number from {least} to {most}, but got '{text}'.",
        param=name,
    )


def several_of(request: Request, name: str) -> list[str]:
    """Return the values of a parameter that may be said several times, as `name` or `name[]`.

    What is said twice counts once.
    """
    given = request.query_params
    found = list(dict.fromkeys([*given.getlist(name), *given.getlist(f"{name}[]")]))
    if len(found) > MAX_VALUES:
        raise InvalidRequest(
            f"Invalid '{name}': at most {MAX_VALUES} values, but got {len(found)}.", param=name
        )
    return [_a_name(name, text) for text in found]


def flag_of(request: Request, name: str) -> bool:
    """Return a parameter that is true or false; left out it is false."""
    text = request.query_params.get(name, "false")
    if text not in {"true", "false"}:
        raise InvalidRequest(
            f"Invalid '{name}': expected 'true' or 'false', but got '{text}'.", param=name
        )
    return text == "true"


def in_path(request: Request, name: str) -> str:
    """Return a part of the path, decoded.

    Raises:
        NotFound: nothing can be called that.
    """
    found = part_of_path(request, name)
    if not is_name(found):
        raise no_such(name.removesuffix("_id").replace("_", " "), found)
    return found


def no_such(what: str, named: str) -> NotFound:
    """Return the 404 for an id that names nothing."""
    return NotFound(f"No such {what}: '{named}'.")


def page_of(page: Page, show: Callable[[Row], Mapping[str, Any]]) -> Response:
    """Return a page in OpenAI's list envelope."""
    data = [show(row) for row in page.rows]
    return JSONResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.has_more,
        }
    )


def _a_name(name: str, text: str) -> str:
    if not is_name(text):
        raise InvalidRequest(f"Invalid '{name}': it holds the character NUL.", param=name)
    return text


def _has_body(request: Request) -> bool:
    # The SDKs call a body that they do not send JSON.
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


def _checked(name: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except TypeError as error:
        raise InvalidRequest(
            f"Invalid type for '{name}': expected {error}.", param=name, code="invalid_type"
        ) from error
    except ValueError as error:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected {error}.", param=name
        ) from error
