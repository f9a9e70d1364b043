"""What do the handlers of requests share?"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Authenticator
from gateway.api.health import Health
from gateway.api.reads import Reads
from gateway.api.recent import Recent
from gateway.billing.catalogue import Catalogue
from gateway.clock import Clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.db.script import Row
from gateway.mirror.turn import Mirror
from gateway.store import ContentStore
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import Tracer
from gateway.upstream.client import Upstream
from gateway.videos.submit import Means
from gateway.work import Work


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a handler may use; made once, by the composition root.

    Attributes:
        mirrored: what content is served from, by project, upstream id and variant.
    """

    settings: Settings
    catalogue: Catalogue
    clock: Clock
    database: Database
    store: ContentStore
    upstreams: Mapping[str, Upstream]
    mirror: Mirror
    mirrored: Recent[tuple[str, str, str], Row]
    authenticator: Authenticator
    reads: Reads
    health: Health
    work: Work
    submitting: Means
    metrics: Metrics
    tracer: Tracer


Handler: TypeAlias = Callable[[Parts, Request], Awaitable[Response]]
