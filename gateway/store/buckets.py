"""How is an object store spoken to: which client, which credentials, how long, how often?

The library tries again by itself what can be asked twice: reads, and also puts, because a key is
unique to its content and a second put of the same bytes changes nothing. Every single try ends
after a time without an answer, so nothing waits for ever for a store that hangs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from gateway.errors import StoreUnavailable
from gateway.store.url import BucketUrl, StoreUrlError

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config, S3Credential

Client = S3Store | GCSStore | AzureStore

MAX_TRIES_AGAIN: Final = 3
_FIRST_WAIT: Final = timedelta(milliseconds=100)
_LONGEST_WAIT: Final = timedelta(seconds=2)
# A download goes on as long as its reader takes it; each read has a deadline of its own.
_WHOLE_ANSWER: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the store may take.

    Attributes:
        connect_seconds: to open a connection.
        answer_seconds: to begin an answer, and for each read of the rest of it.
        part_seconds: to take a part of an upload and to answer.
        again_seconds: after which a failed request is not tried again.
        abandon_seconds: to be told that an upload is not to be finished.
        check_seconds: for the whole of a check.
    """

    connect_seconds: float = 5
    answer_seconds: float = 30
    # The library counts the sending, too: 5 MiB in a minute is a line of 0.7 Mbit/s.
    part_seconds: float = 60
    again_seconds: float = 10
    abandon_seconds: float = 5
    check_seconds: float = 5

    @property
    def reply_seconds(self) -> float:
        """For one reply with all its tries: the last begins before `again_seconds` are over."""
        return self.again_seconds + self.connect_seconds + self.answer_seconds

    @property
    def taken_seconds(self) -> float:
        """The same for a part of an upload."""
        return self.again_seconds + self.connect_seconds + self.part_seconds


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key of an S3-compatible store; not in the repr."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)

    def __call__(self) -> "S3Credential":
        """Return the key to the library, which then looks nowhere else.

        A token in the environment belongs to another key, and would make each request a refusal.
        """
        return {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "token": None,
            "expires_at": None,
        }


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an object store; all paths are below its prefix.

    Attributes:
        asking: the client for everything small, and for downloads.
        sending: the client for uploads, which has more patience.
    """

    asking: Client
    sending: Client
    deadlines: Deadlines


def open_bucket(url: BucketUrl, *, credentials: Credentials | None, deadlines: Deadlines) -> Bucket:
    """Return a way to the bucket; nothing is sent yet.

    Raises:
        StoreUrlError: the library cannot make a client of this.
    """
    try:
        return Bucket(
            asking=_client(url, credentials, deadlines, seconds=deadlines.answer_seconds),
            sending=_client(url, credentials, deadlines, seconds=deadlines.part_seconds),
            deadlines=deadlines,
        )
    except (BaseError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise StoreUrlError(f"cannot be opened: {first_line}") from error


def _client(
    url: BucketUrl, credentials: Credentials | None, deadlines: Deadlines, *, seconds: float
) -> Client:
    endpoint = url.parameters.get("endpoint", "")
    client_options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=deadlines.connect_seconds),
        "read_timeout": timedelta(seconds=seconds),
        "timeout": _WHOLE_ANSWER,
    }
    retry_config: RetryConfig = {
        "max_retries": MAX_TRIES_AGAIN,
        "retry_timeout": timedelta(seconds=deadlines.again_seconds),
        "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": 2},
    }
    prefix = url.prefix or None
    if url.scheme == "gs":
        return GCSStore(
            url.bucket, prefix=prefix, client_options=client_options, retry_config=retry_config
        )
    if url.scheme == "az":
        return AzureStore(
            url.bucket,
            prefix=prefix,
            config=_azure(url),
            client_options=client_options,
            retry_config=retry_config,
        )
    return S3Store(
        url.bucket,
        prefix=prefix,
        config=_s3(url),
        credential_provider=credentials,
        client_options=client_options,
        retry_config=retry_config,
    )


def _s3(url: BucketUrl) -> "S3Config":
    # One at a time: not every S3-compatible store has the bulk form.
    config: S3Config = {"disable_bulk_delete": True}
    style = url.parameters.get("virtual_hosted_style")
    if "region" in url.parameters:
        config["region"] = url.parameters["region"]
    if "endpoint" in url.parameters:
        endpoint = urlsplit(url.parameters["endpoint"])
        if style == "true":
            endpoint = endpoint._replace(netloc=f"{url.bucket}.{endpoint.netloc}")
        # By this name it also wins over AWS_ENDPOINT_URL_S3 in the environment.
        config["aws_endpoint_url_s3"] = endpoint.geturl().rstrip("/")
        style = style or "false"
    if style is not None:
        config["virtual_hosted_style_request"] = style == "true"
    return config


def _azure(url: BucketUrl) -> "AzureConfig":
    config: AzureConfig = {}
    if "account" in url.parameters:
        config["account_name"] = url.parameters["account"]
    if "endpoint" in url.parameters:
        config["endpoint"] = url.parameters["endpoint"]
    return config


@asynccontextmanager
async def answered(what: str, *, seconds: float) -> AsyncIterator[None]:
    """Turn every failure of the store into StoreUnavailable, also that it takes longer than this.

    Fixed words for the client, the cause for the log.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (BaseError, OSError) as failure:
        raise StoreUnavailable(f"The content store could not be {what}.") from failure
