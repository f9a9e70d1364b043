"""What does a request to the upstream look like?

Nothing of the client's own request is passed on but the checked fields and the file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import httpx

from gateway import __version__
from gateway.upstream.replies import OutcomeRules
from gateway.upstream.transport import KEEPALIVE_SECONDS

OPERATIONS: Final = (
    "create",
    "retrieve",
    "content",
    "thumbnail",
    "spritesheet",
    "delete",
    "remix",
    "edit",
    "extend",
    "characters",
)


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """How one upstream is reached and judged.

    Attributes:
        base_url: up to and including `/v1`, without credentials.
        connect_seconds: for a free connection, and again for name, address and TLS.
        send_idle_seconds: longest silence while a body is being sent.
        post_seconds: for the whole answer to a submit, from the last byte of its body on.
        retrieve_seconds: the same for a retrieve.
        content_idle_seconds: longest silence before and within a download.
        keepalive_seconds: how long an idle connection is kept; must be shorter than upstream's.
        max_connections: of each kind: submits, retrieves, downloads, downloads elsewhere.
        private_hosts: hosts that content redirects may lead to although they are not public.
        offers: those of OPERATIONS that it has.
        retention_seconds: how long it keeps content, where a video's object does not say.
        cost_multiplier_ppm: what of a list price it really costs, in millionths.
        pass_unknown_parameters: unknown parameters of a create are forwarded, not refused.
        send_traceparent: it is told which trace it is asked in.
    """

    name: str
    base_url: str
    api_key: str = field(repr=False)
    connect_seconds: float = 5
    send_idle_seconds: float = 30
    post_seconds: float = 120
    retrieve_seconds: float = 30
    content_idle_seconds: float = 30
    keepalive_seconds: float = KEEPALIVE_SECONDS
    max_connections: int = 512
    private_hosts: frozenset[str] = frozenset()
    rules: OutcomeRules = field(default_factory=OutcomeRules)
    offers: frozenset[str] = frozenset({"create", "retrieve", "content"})
    retention_seconds: int = 86_400
    pass_unknown_parameters: bool = False
    cost_multiplier_ppm: int = 1_000_000
    send_traceparent: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of content that it has; `video` always."""
        return ("video", *(name for name in ("thumbnail", "spritesheet") if name in self.offers))


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file of a multipart body; `content` can be rewound and is not closed."""

    field: str
    filename: str
    content_type: str
    content: BinaryIO


@dataclass(frozen=True, slots=True)
class Body:
    """What is submitted: JSON without a file, multipart/form-data with one."""

    fields: Mapping[str, Any]
    file: FilePart | None = None


def build_request(
    settings: UpstreamSettings,
    method: str,
    path: str,
    *,
    seconds: float,
    whole: bool = True,
    accept: str = "application/json",
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
    **body: Any,
) -> httpx.Request:
    """Return a request with the gateway's own headers and with a deadline for every wait.

    The path is under base_url and quoted already. `seconds` is for the whole answer, or, unless
    `whole`, for its head and for every silence within it.
    """
    timeout = {
        "pool": settings.connect_seconds,
        "connect": settings.connect_seconds,
        "write": settings.send_idle_seconds,
        "read": seconds,
    }
    if whole:
        timeout["answer"] = seconds
    sent = {
        "authorization": f"Bearer {settings.api_key}",
        "accept": accept,
        # The relay is known to mark bodies as gzip that are not.
        "accept-encoding": "identity",
        "user-agent": f"video-gateway/{__version__}",
        **(headers or {}),
    }
    if request_id is not None:
        sent["x-request-id"] = request_id
    return httpx.Request(
        method,
        f"{settings.base_url.rstrip('/')}{path}",
        headers=sent,
        extensions={"timeout": timeout, **(extensions or {})},
        **body,
    )


def encoded(body: Body) -> dict[str, Any]:
    """Return httpx's arguments for a body: compact JSON, or a form that streams its file.

    Raises:
        OSError: the file cannot be rewound.
        ValueError: the file is closed, or a field is not text.
    """
    if body.file is None:
        text = json.dumps(dict(body.fields), ensure_ascii=False, separators=(",", ":"))
        return {"content": text.encode(), "headers": {"content-type": "application/json"}}
    part = body.file
    # Rewinding flushes what was written, so that the length httpx looks up is the real one.
    part.content.seek(0)
    files = {part.field: (part.filename, part.content, part.content_type)}
    return {"data": _flat(body.fields), "files": files}


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as parts of a form, nested ones in brackets as the SDKs write them."""
    parts: dict[str, Any] = {}
    for name, value in fields.items():
        match value:
            case dict():
                parts |= {f"{name}[{key}]": str(inner) for key, inner in value.items()}
            case list():
                for one in value:
                    for key, inner in one.items():
                        parts.setdefault(f"{name}[][{key}]", []).append(str(inner))
            case _:
                parts[name] = value
    return parts


def quoted_id(upstream_id: str) -> str:
    """Return an id as one segment of a path: `/`, `?` and `..` in it lead nowhere else.

    A segment of dots alone is quoted too: URL libraries take `.` and `..` for steps.
    """
    quoted = quote(upstream_id, safe="")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted
