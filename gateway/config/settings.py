"""What can be set?

Each field of the two records is a setting: its default, what it is, and what it must be are said
here, and command line, README and checks read them from here.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.config import checks
from gateway.db.url import parse_database_url
from gateway.upstream.requests import OPERATIONS

# What the relay documents; the other operations are a clear error there, not a forwarded surprise.
DOCUMENTED: Final = ("create", "retrieve", "content")
RELAY_BASE_URL: Final = "https://api.apiyi.com/v1"
HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
MIB: Final = 1 << 20
PPM: Final = 1_000_000
# The same for the upstream of the two variables as for one with a table of its own.
_COST_HELP: Final = (
    "what a list price really costs, in millionths: 909091 for a top-up bonus of 10 %"
)
_TRACEPARENT_HELP: Final = "the upstream is told the trace that it is asked in"
_ACCOUNT_HELP: Final = "reads the account's log at the upstream, for reconcile"
_ACCOUNT_URL_HELP: Final = "where the account's log is; by default the origin of the upstream"


def _setting(
    default: Any,
    text: str,
    *,
    least: int | None = None,
    secret: bool = False,
    from_file: bool = False,
    check: Any = None,
) -> Any:
    """Return a setting; `from_file`: also read from a file, as a secret is, but a flag as well."""
    from_file = from_file or secret
    metadata = {"help": text, "least": least, "secret": secret, "from_file": from_file}
    return field(default=default, metadata={**metadata, "check": check}, repr=not from_file)


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One upstream, `[upstreams.NAME]` in the file. The setting names are those of the file."""

    name: str = DEFAULT_UPSTREAM
    base_url: str = _setting(RELAY_BASE_URL, "where it is, with /v1", check=checks.http_url)
    api_key: str = _setting("", "the upstream key", secret=True, check=checks.upstream_secret)
    post_seconds: int = _setting(120, "deadline for the answer to a POST", least=1)
    retention_seconds: int = _setting(
        DAY_SECONDS, "how long it keeps content when its object does not say", least=0
    )
    offers: tuple[str, ...] = _setting(
        DOCUMENTED, f"what it has, of {', '.join(OPERATIONS)}", check=checks.operations
    )
    pass_unknown_parameters: bool = _setting(
        default=False, text="forward unknown parameters of a create instead of refusing them"
    )
    bad_gateway_is_refusal: bool = _setting(
        default=False, text="a 502 means that nothing was executed"
    )
    unknown_codes: tuple[str, ...] = _setting(
        ("write_response_body_failed",),
        "error codes of a 500 or 503 after which the outcome is unknown all the same",
    )
    cost_multiplier_ppm: int = _setting(PPM, _COST_HELP, check=checks.cost_multiplier)
    send_traceparent: bool = _setting(default=False, text=_TRACEPARENT_HELP)
    account_token: str = _setting("", _ACCOUNT_HELP, secret=True, check=checks.upstream_secret)
    account_url: str = _setting("", _ACCOUNT_URL_HELP, check=checks.http_url_or_none)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set. Secrets are not in the repr."""

    host: str = _setting("127.0.0.1", "address the API listens on")
    port: int = _setting(8080, "port of the API; 0 takes a free one", least=0, check=checks.port)
    ops_host: str = _setting("127.0.0.1", "address the ops port listens on")
    ops_port: int = _setting(
        9090, "port for health; 0 takes a free one", least=0, check=checks.port
    )
    workers: int = _setting(
        1, "processes that serve the two ports; several need PostgreSQL", least=1
    )
    database_url: str = _setting(
        "sqlite:///data/gateway.db",
        "where records live: a file, or postgresql://user@host/name",
        from_file=True,
        check=checks.database_url,
    )
    database_password: str = _setting(
        "", "password at the database server, where the URL has none", secret=True
    )
    database_direct_url: str = _setting(
        "",
        "the database server past its pooler, where changes are listened for; looked for each"
        " second without it",
        from_file=True,
        check=checks.server_url_or_none,
    )
    database_connections: int = _setting(
        10, "connections of one process to the database server", least=3
    )
    migrate_at_start: bool = _setting(
        default=True, text="bring the database to the program's tables; else `migrate` has to"
    )
    store_url: str = _setting("file:data/content", "where content lives", check=checks.store_url)
    store_access_key_id: str = _setting(
        "",
        "key of an S3-compatible store; without it, what AWS's own libraries look at",
        secret=True,
        check=checks.upstream_secret,
    )
    store_secret_access_key: str = _setting(
        "", "secret of that key", secret=True, check=checks.upstream_secret
    )
    upstream_base_url: str = _setting(
        RELAY_BASE_URL, "the upstream, with /v1", check=checks.http_url
    )
    upstream_api_key: str = _setting(
        "", "the upstream key", secret=True, check=checks.upstream_secret
    )
    upstream_post_seconds: int = _setting(
        120, "deadline for the upstream's answer to a POST, from the last body byte", least=1
    )
    upstream_offers: tuple[str, ...] = _setting(
        DOCUMENTED, f"what the upstream has, of {', '.join(OPERATIONS)}", check=checks.operations
    )
    upstream_cost_multiplier_ppm: int = _setting(PPM, _COST_HELP, check=checks.cost_multiplier)
    upstream_send_traceparent: bool = _setting(default=False, text=_TRACEPARENT_HELP)
    upstream_account_token: str = _setting(
        "", _ACCOUNT_HELP, secret=True, check=checks.upstream_secret
    )
    upstream_account_url: str = _setting("", _ACCOUNT_URL_HELP, check=checks.http_url_or_none)
    admin_key: str = _setting(
        "", "first key of the admin API (vga_…)", secret=True, check=checks.admin_key
    )
    catalogue: str = _setting("", "path of a catalogue that replaces the packaged one")
    budget_basis: str = _setting(
        "list",
        "what budgets act on: list prices, or (cost) what they cost after the upstream's cost"
        " multiplier",
        check=checks.one_of("list", "cost"),
    )
    disclose_budgets: bool = _setting(
        default=False, text="key holders see the organization's budget figures in refusals"
    )
    read_requests_per_minute: int = _setting(
        0, "reads that one key may make per minute in one process; 0 is no limit", least=0
    )
    smtp_host: str = _setting("", "mail server for spend alerts; none are mailed without it")
    smtp_port: int = _setting(587, "port of the mail server", least=1, check=checks.port)
    smtp_security: str = _setting(
        "starttls",
        "starttls, tls or none: how the mail server is spoken to",
        check=checks.one_of("starttls", "tls", "none"),
    )
    smtp_username: str = _setting("", "name at the mail server; none, no login")
    smtp_password: str = _setting("", "password at the mail server", secret=True)
    smtp_from: str = _setting(
        "", "sender of alert mails, required with smtp_host", check=checks.mail_sender
    )
    alert_webhook_secret: str = _setting(
        "",
        "signs webhook alerts (Standard Webhooks): whsec_ and base64",
        secret=True,
        check=checks.webhook_secret,
    )
    poll_interval_seconds: int = _setting(10, "between two polls of one video", least=1)
    poll_concurrency: int = _setting(64, "polls under way at once", least=1)
    patience_seconds: int = _setting(
        DAY_SECONDS, "after which a video without an end becomes an orphan", least=1
    )
    mirror_concurrency: int = _setting(
        4, "assets mirrored at once, beside those that a client waits for", least=1
    )
    fetch_concurrency: int = _setting(
        64, "downloads from upstreams at once, whoever waits for them", least=1
    )
    fetch_bytes_per_second: int = _setting(
        0,
        "bandwidth of all downloads from upstreams together, in one process; 0 is no limit",
        least=0,
    )
    mirror_alarm_seconds: int = _setting(
        1800, "rings when so little time is left to mirror content in", least=0
    )
    store_redirect_seconds: int = _setting(
        0,
        "clients of an object store are sent to a URL of its own (302) that is good for so long;"
        " 0 streams the content through",
        least=0,
        check=checks.presigned_seconds,
    )
    front_server: str = _setting(
        "",
        "x-accel-redirect or x-sendfile: a server in front sends the files of the folder",
        check=checks.one_of("", "x-accel-redirect", "x-sendfile"),
    )
    front_server_prefix: str = _setting(
        "", "what its header puts before the file's path in the folder, such as /content/"
    )
    spool_path: str = _setting(
        "", "folder for content on its way; the system's folder for temporary files without it"
    )
    max_content_bytes: int = _setting(2048 * MIB, "longest content that is mirrored", least=1)
    content_wait_seconds: int = _setting(
        20, "how long a download waits for the mirror before it is told to come again", least=0
    )
    keep_days: int = _setting(
        0, "how long content is kept since it was mirrored; 0 is for ever", least=0
    )
    keep_bytes: int = _setting(
        0,
        "how much content of all projects is kept, the oldest goes first; 0 is no limit",
        least=0,
    )
    verify_days: int = _setting(
        0, "within how many days all content is read again and compared; 0 is never", least=0
    )
    verify_bytes_per_second: int = _setting(
        8 * MIB, "how fast content is read for that, in one process; 0 is no limit", least=0
    )
    max_body_bytes: int = _setting(32 * MIB, "longest request body", least=1)
    upload_idle_seconds: int = _setting(30, "longest silence while a body is sent", least=1)
    reply_seconds: int = _setting(
        10, "how long a client waits for the record once the upstream has answered", least=1
    )
    drain_delay_seconds: int = _setting(
        0,
        "how long SIGTERM goes on with everything while a load balancer sees that it is not ready",
        least=0,
    )
    shutdown_seconds: int = _setting(
        150, "how long what is in flight has then to be finished", least=0
    )
    metrics_max_projects: int = _setting(
        200, "projects with metrics of their own; the others are one, `other`", least=0
    )
    metrics_max_keys: int = _setting(
        0,
        "keys with metrics of their own, those that spent most; for few keys: each has 9 series",
        least=0,
    )
    audit_hours: int = _setting(
        24, "how often the ledger is audited while the gateway runs; 0 is never", least=0
    )
    trace_url: str = _setting(
        "",
        "where traces are sent: an OTLP receiver such as http://127.0.0.1:4318/v1/traces; without"
        " it, none are made",
        check=checks.trace_url,
    )
    trace_sample_ppm: int = _setting(
        PPM,
        "how many of the traces that begin here are recorded, in millionths; the others are as"
        " their callers say",
        least=0,
        check=checks.share,
    )
    log_format: str = _setting(
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
