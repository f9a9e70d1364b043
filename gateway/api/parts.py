"""What do the handlers of requests share?"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.api.auth import Authenticator
from gateway.api.health import Health
from gateway.billing.catalogue import Catalogue
from gateway.clock import Clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.store import ContentStore
from gateway.upstream.client import Upstream
from gateway.videos.submit import Means
from gateway.videos.work import Work


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a handler may use; made once, by the composition root."""

    settings: Settings
    catalogue: Catalogue
    clock: Clock
    database: Database
    store: ContentStore
    upstreams: Mapping[str, Upstream]
    authenticator: Authenticator
    health: Health
    work: Work
    submitting: Means
