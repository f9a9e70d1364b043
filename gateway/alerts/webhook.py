"""How does an alert reach a webhook, so that the receiver can tell that it is ours?

Signed as https://www.standardwebhooks.com says, which is how OpenAI signs its own: their SDKs
check it. A 2xx status is the receipt; anything else is a failure, a redirect too, because
whoever answers it decides where a signed body goes.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
from typing import Final
from urllib.parse import urlsplit

import httpx

from gateway import __version__
from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.message import Crossing, event

WEBHOOK_SECONDS: Final = 10.0
_PREFIX: Final = "whsec_"
# The standard's bounds of a secret.
_LEAST_KEY_BYTES: Final = 24
_MOST_KEY_BYTES: Final = 64
_MAX_PORT: Final = 65_535


async def post_event(
    crossing: Crossing, url: str, *, secret: str, now: int, tls: ssl.SSLContext, seconds: float
) -> None:
    """Post the signed event; on return the receiver has acknowledged it.

    Args:
        crossing: what has happened.
        url: where to.
        secret: `whsec_` and base64.
        now: Unix seconds, which the receiver compares with its own.
        tls: how an https receiver is verified. It is changed: httpx sets its ALPN protocols.
        seconds: deadline for the whole.

    Raises:
        DeliveryFailed: no 2xx status came.
    """
    headers = _headers(crossing, event(crossing), secret=secret, now=now)
    where = _url(url)
    try:
        # A client of its own: no cookie, no idle connection and no pool shared with a dead one.
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                verify=tls, trust_env=False, follow_redirects=False, timeout=seconds
            ) as client,
            client.stream("POST", where, content=event(crossing), headers=headers) as answer,
        ):
            # The body is not read: the status says all, and nobody decides how long it is.
            status = answer.status_code
            success = answer.is_success
    except (TimeoutError, httpx.TimeoutException) as error:
        raise DeliveryFailed("webhook_timeout") from error
    except httpx.ConnectError as error:
        reason = "webhook_certificate" if _is_certificate(error) else "webhook_unreachable"
        raise DeliveryFailed(reason) from error
    # uvloop raises RuntimeError where a transport is closed under a write.
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        raise DeliveryFailed("webhook_broken_off") from error
    # After OSError: the certificate errors of ssl are both.
    except (ValueError, httpx.InvalidURL) as error:
        raise DeliveryFailed("webhook_url") from error
    if not success:
        raise DeliveryFailed(f"webhook_status {status}")


def is_hook(text: str) -> bool:
    """Tell whether events can be posted there; a URL with a login is none.

    URLs are shown, and stand in the audit log: a password has no place in them.
    """
    if not text.isprintable() or " " in text:
        return False
    try:
        url = _url(text)
        return "@" not in urlsplit(text).netloc and not url.userinfo
    except (DeliveryFailed, ValueError):
        return False


def secret_key(secret: str) -> bytes:
    """Return the bytes that a secret signs with.

    Raises:
        ValueError: it is not `whsec_` and the base64 of 24 to 64 bytes.
    """
    complaint = "must be whsec_ and the base64 of 24 to 64 random bytes"
    if not secret.startswith(_PREFIX):
        raise ValueError(complaint)
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(complaint) from error
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise ValueError(complaint)
    return key


def _headers(crossing: Crossing, body: bytes, *, secret: str, now: int) -> dict[str, str]:
    if not secret:
        raise DeliveryFailed("webhook_secret_missing")
    try:
        key = secret_key(secret)
    except ValueError as error:
        raise DeliveryFailed("webhook_secret_invalid") from error
    # Not the package standardwebhooks (no dependencies, kept up): signing is this one line of
    # hmac, and its sign() takes text and a datetime whose zone it overwrites.
    signature = hmac.digest(key, b"%s.%d.%s" % (crossing.id.encode(), now, body), hashlib.sha256)
    return {
        "content-type": "application/json",
        "user-agent": f"video-gateway/{__version__}",
        "webhook-id": crossing.id,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
        # Only now the host is decoded: `xn--a` is an IDNAError, which is a ValueError.
        named = bool(url.host and url.raw_host)
    except (ValueError, httpx.InvalidURL) as error:
        raise DeliveryFailed("webhook_url") from error
    # A port too large is an OverflowError in a group of errors, deep below httpx.
    if url.scheme not in {"http", "https"} or not named or (url.port or 0) > _MAX_PORT:
        raise DeliveryFailed("webhook_url")
    return url


def _is_certificate(error: BaseException) -> bool:
    """Tell whether the receiver's certificate is why; httpx keeps the cause only as context."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
