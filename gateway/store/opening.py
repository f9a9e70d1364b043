"""How does a URL become a store?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.store import ContentStore
from gateway.store.folder import FolderStore
from gateway.store.url import BucketUrl, StoreUrlError, parse_store_url


@asynccontextmanager
async def open_store_url(
    url: str, *, access_key_id: str = "", secret_access_key: str = ""
) -> AsyncIterator[ContentStore]:
    """Yield the store that a URL names; see url.py. Nothing is sent to it yet.

    Args:
        url: of a folder or a bucket.
        access_key_id: of an S3-compatible store, with its secret; without both, the library looks
            where AWS's own libraries look.
        secret_access_key: its secret.

    Raises:
        StoreUrlError: the URL names no store, the keys do not belong to it, or the library for
            object stores is not installed.
    """
    named = parse_store_url(url)
    if bool(access_key_id) != bool(secret_access_key):
        raise StoreUrlError("needs store_access_key_id and store_secret_access_key, or neither")
    if access_key_id and not (isinstance(named, BucketUrl) and named.scheme == "s3"):
        raise StoreUrlError("has no use for store_access_key_id: only s3:// has")
    if isinstance(named, Path):
        folder = FolderStore(named)
        try:
            yield folder
        finally:
            folder.close()
        return
    yield _object_store(named, access_key_id=access_key_id, secret_access_key=secret_access_key)


def _object_store(url: BucketUrl, *, access_key_id: str, secret_access_key: str) -> ContentStore:
    # Only here: a gateway with a local folder needs no library for object stores.
    try:
        from gateway.store.buckets import (  # noqa: PLC0415 - see above
            Credentials,
            Deadlines,
            open_bucket,
        )
        from gateway.store.objects import ObjectStore  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "obstore":
            raise
        raise StoreUrlError(
            f"needs a library for {url.scheme}://: pip install 'video-gateway[objects]'"
        ) from error
    credentials = Credentials(access_key_id, secret_access_key) if access_key_id else None
    return ObjectStore(open_bucket(url, credentials=credentials, deadlines=Deadlines()))
