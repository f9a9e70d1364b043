"""What can be set?

Each field of the records here and in upstreams.py is a setting: its default, what it is, and
what it must be are said there, and command line, README and checks read them from here.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.config import checks
from gateway.config.upstreams import (
    ACCOUNT_HELP,
    ACCOUNT_URL_HELP,
    COST_HELP,
    DAY_SECONDS,
    DOCUMENTED,
    PPM,
    RELAY_BASE_URL,
    TRACEPARENT_HELP,
    UpstreamConfig,
    setting,
)
from gateway.db.url import parse_database_url
from gateway.upstream.requests import OPERATIONS

HOUR_SECONDS: Final = 3_600
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set. Secrets are not in the repr."""

    host: str = setting("127.0.0.1", "address the API listens on")
    port: int = setting(8080, "port of the API; 0 takes a free one", least=0, check=checks.port)
    ops_host: str = setting("127.0.0.1", "address the ops port listens on")
    ops_port: int = setting(9090, "port for health; 0 takes a free one", least=0, check=checks.port)
    workers: int = setting(
        1, "processes that serve the two ports; several need PostgreSQL", least=1
    )
    database_url: str = setting(
        "sqlite:///data/gateway.db",
        "where records live: a file, or postgresql://user@host/name",
        from_file=True,
        check=checks.database_url,
    )
    database_password: str = setting(
        "", "password at the database server, where the URL has none", secret=True
    )
    database_direct_url: str = setting(
        "",
        "the database server past its pooler, where changes are listened for; looked for each"
        " second without it",
        from_file=True,
        check=checks.server_url_or_none,
    )
    database_connections: int = setting(
        10, "connections of one process to the database server", least=3
    )
    migrate_at_start: bool = setting(
        default=True, text="bring the database to the program's tables; else `migrate` has to"
    )
    store_url: str = setting("file:data/content", "where content lives", check=checks.store_url)
    store_access_key_id: str = setting(
        "",
        "key of an S3-compatible store; without it, what AWS's own libraries look at",
        secret=True,
        check=checks.upstream_secret,
    )
    store_secret_access_key: str = setting(
        "", "secret of that key", secret=True, check=checks.upstream_secret
    )
    upstream_base_url: str = setting(
        RELAY_BASE_URL, "the upstream, with /v1", check=checks.http_url
    )
    upstream_api_key: str = setting(
        "", "the upstream key", secret=True, check=checks.upstream_secret
    )
    upstream_post_seconds: int = setting(
        120, "deadline for the upstream's answer to a POST, from the last body byte", least=1
    )
    upstream_offers: tuple[str, ...] = setting(
        DOCUMENTED, f"what the upstream has, of {', '.join(OPERATIONS)}", check=checks.operations
    )
    upstream_cost_multiplier_ppm: int = setting(PPM, COST_HELP, check=checks.cost_multiplier)
    upstream_send_traceparent: bool = setting(default=False, text=TRACEPARENT_HELP)
    upstream_account_token: str = setting(
        "", ACCOUNT_HELP, secret=True, check=checks.upstream_secret
    )
    upstream_account_url: str = setting("", ACCOUNT_URL_HELP, check=checks.http_url_or_none)
    admin_key: str = setting(
        "", "first key of the admin API (vga_…)", secret=True, check=checks.admin_key
    )
    catalogue: str = setting("", "path of a catalogue that replaces the packaged one")
    budget_basis: str = setting(
        "list",
        "what budgets act on: list prices, or (cost) what they cost after the upstream's cost"
        " multiplier",
        check=checks.one_of("list", "cost"),
    )
    disclose_budgets: bool = setting(
        default=False, text="key holders see the organization's budget figures in refusals"
    )
    read_requests_per_minute: int = setting(
        0, "reads that one key may make per minute in one process; 0 is no limit", least=0
    )
    smtp_host: str = setting("", "mail server for spend alerts; none are mailed without it")
    smtp_port: int = setting(587, "port of the mail server", least=1, check=checks.port)
    smtp_security: str = setting(
        "starttls",
        "starttls, tls or none: how the mail server is spoken to",
        check=checks.one_of("starttls", "tls", "none"),
    )
    smtp_username: str = setting("", "name at the mail server; none, no login")
    smtp_password: str = setting("", "password at the mail server", secret=True)
    smtp_from: str = setting(
        "", "sender of alert mails, required with smtp_host", check=checks.mail_sender
    )
    alert_webhook_secret: str = setting(
        "",
        "signs webhook alerts (Standard Webhooks): whsec_ and base64",
        secret=True,
        check=checks.webhook_secret,
    )
    poll_interval_seconds: int = setting(10, "between two polls of one video", least=1)
    poll_concurrency: int = setting(64, "polls under way at once", least=1)
    patience_seconds: int = setting(
        DAY_SECONDS, "after which a video without an end becomes an orphan", least=1
    )
    mirror_concurrency: int = setting(
        4, "assets mirrored at once, beside those that a client waits for", least=1
    )
    fetch_concurrency: int = setting(
        64, "downloads from upstreams at once, whoever waits for them", least=1
    )
    fetch_bytes_per_second: int = setting(
        0,
        "bandwidth of all downloads from upstreams together, in one process; 0 is no limit",
        least=0,
    )
    mirror_alarm_seconds: int = setting(
        1800, "rings when so little time is left to mirror content in", least=0
    )
    store_redirect_seconds: int = setting(
        0,
        "clients of an object store are sent to a URL of its own (302) that is good for so long;"
        " 0 streams the content through",
        least=0,
        check=checks.presigned_seconds,
    )
    front_server: str = setting(
        "",
        "x-accel-redirect or x-sendfile: a server in front sends the files of the folder",
        check=checks.one_of("", "x-accel-redirect", "x-sendfile"),
    )
    front_server_prefix: str = setting(
        "", "what its header puts before the file's path in the folder, such as /content/"
    )
    spool_path: str = setting(
        "", "folder for content on its way; the system's folder for temporary files without it"
    )
    max_content_bytes: int = setting(2048 * MIB, "longest content that is mirrored", least=1)
    content_wait_seconds: int = setting(
        20, "how long a download waits for the mirror before it is told to come again", least=0
    )
    keep_days: int = setting(
        0, "how long content is kept since it was mirrored; 0 is for ever", least=0
    )
    keep_bytes: int = setting(
        0,
        "how much content of all projects is kept, the oldest goes first; 0 is no limit",
        least=0,
    )
    verify_days: int = setting(
        0, "within how many days all content is read again and compared; 0 is never", least=0
    )
    verify_bytes_per_second: int = setting(
        8 * MIB, "how fast content is read for that, in one process; 0 is no limit", least=0
    )
    max_body_bytes: int = setting(32 * MIB, "longest request body", least=1)
    upload_idle_seconds: int = setting(30, "longest silence while a body is sent", least=1)
    reply_seconds: int = setting(
        10, "how long a client waits for the record once the upstream has answered", least=1
    )
    drain_delay_seconds: int = setting(
        0,
        "how long SIGTERM goes on with everything while a load balancer sees that it is not ready",
        least=0,
    )
    shutdown_seconds: int = setting(
        150, "how long what is in flight has then to be finished", least=0
    )
    metrics_max_projects: int = setting(
        200, "projects with metrics of their own; the others are one, `other`", least=0
    )
    metrics_max_keys: int = setting(
        0,
        "keys with metrics of their own, those that spent most; for few keys: each has 9 series",
        least=0,
    )
    audit_hours: int = setting(
        24, "how often the ledger is audited while the gateway runs; 0 is never", least=0
    )
    trace_url: str = setting(
        "",
        "where traces are sent: an OTLP receiver such as http://127.0.0.1:4318/v1/traces; without"
        " it, none are made",
        check=checks.trace_url,
    )
    trace_sample_ppm: int = setting(
        PPM,
        "how many of the traces that begin here are recorded, in millionths; the others are as"
        " their callers say",
        least=0,
        check=checks.share,
    )
    log_format: str = setting(
        "auto", "json, console, or auto by terminal", check=checks.one_of("auto", "json", "console")
    )
    upstreams: tuple[UpstreamConfig, ...] = field(default=(), repr=True)

    def all_upstreams(self) -> tuple[UpstreamConfig, ...]:
        """Return the upstreams: the one of the two variables, unless the file names it itself."""
        if any(one.name == DEFAULT_UPSTREAM for one in self.upstreams):
            return self.upstreams
        default = UpstreamConfig(
            base_url=self.upstream_base_url,
            api_key=self.upstream_api_key,
            post_seconds=self.upstream_post_seconds,
            offers=self.upstream_offers,
            cost_multiplier_ppm=self.upstream_cost_multiplier_ppm,
            send_traceparent=self.upstream_send_traceparent,
            account_token=self.upstream_account_token,
            account_url=self.upstream_account_url,
        )
        return (default, *self.upstreams)

    @property
    def audit_seconds(self) -> int:
        """How old the last audit of the ledger may get; 0: none is made."""
        return self.audit_hours * HOUR_SECONDS

    @property
    def keep_seconds(self) -> int:
        """How long content is kept since it was mirrored; 0 is for ever."""
        return self.keep_days * DAY_SECONDS

    @property
    def database_path(self) -> Path | None:
        """The SQLite file, None where the database is a server."""
        named = parse_database_url(self.database_url)
        return named if isinstance(named, Path) else None

    @property
    def store_path(self) -> Path:
        """The folder for content, where the store is one."""
        return Path(urlsplit(self.store_url).path)


def settings_fields() -> Iterator["Field[Any]"]:
    """Yield the fields that are settings of their own (not the upstream tables)."""
    return (one for one in fields(Settings) if one.name != "upstreams")
