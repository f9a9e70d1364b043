"""Whose matter is it that the upstream said no, and what is the client told?

In this order, the first that applies:

    401                                          the gateway's key            UpstreamAuth
    402, or a code of an empty account           the gateway's balance        UpstreamBalance
    403 that does not speak of moderation,       the key's group, or its   UpstreamMisconfigured
    or "no channel serves this model"            billing mode
    429                                          the gateway's rate limit     UpstreamRateLimited
    everything else                              the request itself           UpstreamRefused

Of the first three the client hears fixed words, because the upstream's name its accounts. The
others pass on what the upstream said, in OpenAI's envelope, and a fixed sentence if it said
nothing.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from gateway.errors import (
    GatewayError,
    UpstreamAuth,
    UpstreamBalance,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRefused,
)
from gateway.upstream.envelopes import Said, retry_after_headers, says

_BALANCE_CODES: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "insufficient_quota",
        "insufficient_user_quota",
        "quota_not_enough",
    }
)
_NO_CHANNEL: Final = ("无可用渠道", "no available channel")
# Relays answer a wrong group or billing mode with 403 too, so moderation must be named.
_MODERATION: Final = ("moderation", "content_policy", "content policy", "safety system")


def refusal(*, status: int, headers: Mapping[str, str], said: Said) -> GatewayError:
    """Return what the client is told of a refusal; never HTML."""
    if status == HTTPStatus.UNAUTHORIZED:
        return UpstreamAuth("The upstream did not accept the gateway's own key.")
    if status == HTTPStatus.PAYMENT_REQUIRED or said.code in _BALANCE_CODES:
        return UpstreamBalance("The gateway's account at the upstream has run out of money.")
    forbidden = status == HTTPStatus.FORBIDDEN and not says(said, _MODERATION)
    if forbidden or says_no_channel(said):
        return UpstreamMisconfigured(
            "The gateway's key at the upstream may not use this model; its operator has to look."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return UpstreamRateLimited(
            said.message or "The upstream is being asked too often; try again later.",
            headers=retry_after_headers(headers),
        )
    return UpstreamRefused(
        said.message or _fixed_message(status),
        status=status,
        type=said.type,
        param=said.param,
        code=said.code,
        headers=retry_after_headers(headers),
    )


def says_no_channel(said: Said) -> bool:
    """Return whether no channel of the relay serves the model: wrong group, or billing mode."""
    return says(said, _NO_CHANNEL)


def _fixed_message(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"The upstream could not take the request (status {status}); nothing was billed."
    return f"The upstream refused the request with status {status} and gave no reason."
