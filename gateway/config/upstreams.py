"""What can be set of one upstream, and how is any setting declared?"""

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.config import checks
from gateway.upstream.requests import OPERATIONS

# What the relay documents; the other operations are a clear error there, not a forwarded surprise.
DOCUMENTED: Final = ("create", "retrieve", "content")
RELAY_BASE_URL: Final = "https://api.apiyi.com/v1"
DAY_SECONDS: Final = 86_400
PPM: Final = 1_000_000
# The same for the upstream of the two variables as for one with a table of its own.
COST_HELP: Final = (
    "what a list price really costs, in millionths: 909091 for a top-up bonus of 10 %"
)
TRACEPARENT_HELP: Final = "the upstream is told the trace that it is asked in"
ACCOUNT_HELP: Final = "reads the account's log at the upstream, for reconcile"
ACCOUNT_URL_HELP: Final = "where the account's log is; by default the origin of the upstream"


def setting(
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
    base_url: str = setting(RELAY_BASE_URL, "where it is, with /v1", check=checks.http_url)
    api_key: str = setting("", "the upstream key", secret=True, check=checks.upstream_secret)
    post_seconds: int = setting(120, "deadline for the answer to a POST", least=1)
    retention_seconds: int = setting(
        DAY_SECONDS, "how long it keeps content when its object does not say", least=0
    )
    offers: tuple[str, ...] = setting(
        DOCUMENTED, f"what it has, of {', '.join(OPERATIONS)}", check=checks.operations
    )
    pass_unknown_parameters: bool = setting(
        default=False, text="forward unknown parameters of a create instead of refusing them"
    )
    bad_gateway_is_refusal: bool = setting(
        default=False, text="a 502 means that nothing was executed"
    )
    unknown_codes: tuple[str, ...] = setting(
        ("write_response_body_failed",),
        "error codes of a 500 or 503 after which the outcome is unknown all the same",
    )
    cost_multiplier_ppm: int = setting(PPM, COST_HELP, check=checks.cost_multiplier)
    send_traceparent: bool = setting(default=False, text=TRACEPARENT_HELP)
    account_token: str = setting("", ACCOUNT_HELP, secret=True, check=checks.upstream_secret)
    account_url: str = setting("", ACCOUNT_URL_HELP, check=checks.http_url_or_none)
