"""Does a URL name the store that it seems to name, and is every mistake in it told?"""

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from object_servers import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, ObjectServer
from store_tools import prefix_of, put

from gateway.config import Settings, SettingsError, load
from gateway.errors import StoreUnavailable
from gateway.setup import open_store
from gateway.store.folder import FolderStore
from gateway.store.layout import SHARDS, key_at, path_of
from gateway.store.opening import open_store_url
from gateway.store.url import BucketUrl, StoreUrlError, parse_store_url

ENDPOINT = quote("http://127.0.0.1:9")
SECRET = "a-secret-that-nobody-may-see"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:data/content", Path("data/content")),
        ("file:///data/content", Path("/data/content")),
        ("s3://bucket", BucketUrl("s3", "bucket", "", {})),
        ("s3://bucket/", BucketUrl("s3", "bucket", "", {})),
        ("s3://my.bucket-1/a/b_c/", BucketUrl("s3", "my.bucket-1", "a/b_c", {})),
        (
            f"s3://bucket/a?endpoint={ENDPOINT}&region=eu-west-1&virtual_hosted_style=false",
            BucketUrl(
                "s3",
                "bucket",
                "a",
                {
                    "endpoint": "http://127.0.0.1:9",
                    "region": "eu-west-1",
                    "virtual_hosted_style": "false",
                },
            ),
        ),
        ("gs://bucket/a", BucketUrl("gs", "bucket", "a", {})),
        (
            "az://container/a?account=mine&endpoint=https://mine.example",
            BucketUrl(
                "az", "container", "a", {"account": "mine", "endpoint": "https://mine.example"}
            ),
        ),
    ],
)
def test_a_url_names_a_folder_or_a_bucket(url: str, expected: Path | BucketUrl) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *[
            (url, "must be file:///absolute")
            for url in ("", "data", "file:", "file:///", "file://[")
        ],
        *[(url, "must be file:///absolute") for url in ("file://host/x", "ftp://x", "S3", "x:y")],
        *[(f"s3://{name}", "must name a bucket") for name in ("", "/a", "b", "-bucket", "a%20b")],
        ("s3:/bucket", "must name a bucket"),
        *[(f"gs://bucket:{port}", "must") for port in ("80", "x")],
        *[
            (f"s3://bucket/{path}", "must have a prefix")
            for path in ("a//b", "../a", ".a", "ä", "a b")
        ],
        (f"s3://bucket/{'a' * 600}", "must have a prefix"),
        ("s3://bucket/a#b", "must not have a fragment"),
        ("s3://bucket?regions=x", "'regions'; s3:// has endpoint, region, virtual_hosted_style,"),
        ("gs://bucket?region=x", "'region'; gs:// has none,"),
        ("az://bucket?region=x", "'region'; az:// has account, endpoint,"),
        ("s3://bucket?region=a&region=b", "has its parameter 'region' twice"),
        ("s3://bucket?region=", "'region' that must be letters"),
        ("s3://bucket?virtual_hosted_style=1", "must be true or false"),
        *[
            (f"s3://bucket?endpoint={quote(endpoint)}", "'endpoint' that must")
            for endpoint in ("", "host", "ftp://host", "http://", "http://[", "http://h/?a=1")
        ],
        (f"s3://{SECRET}:{SECRET}@bucket", "must not hold credentials: set store_access_key_id"),
        (f"s3://bucket?secret_access_key={SECRET}", "and never credentials"),
        (f"s3://bucket?endpoint=https://a:{SECRET}@host", "must not hold credentials"),
    ],
)
def test_any_other_url_is_refused_with_what_is_wrong_and_without_secrets(
    url: str, problem: str
) -> None:
    with pytest.raises(StoreUrlError) as refusal:
        parse_store_url(url)
    assert problem in str(refusal.value)
    assert SECRET not in str(refusal.value)
    with pytest.raises(SettingsError) as told:
        load(file=None, environ={"GATEWAY_STORE_URL": url}, flags={}, serving=False)
    assert told.value.problems == [f"store_url {refusal.value}"]


def test_a_key_has_one_path_and_a_path_of_ours_one_key() -> None:
    keys = [f"asset_{number}" for number in range(2000)]
    assert [key_at(path_of(key)) for key in keys] == keys
    assert {path_of(key).partition("/")[0] for key in keys} == set(SHARDS)
    for path in ("key", "00/key", "tmp/check", "", "/", "00/", f"{path_of('key')}/x", "00/a-b"):
        assert key_at(path) is None


@pytest.mark.parametrize(
    ("url", "keys", "problem"),
    [
        ("file:data", ("a", "b"), "only s3:// has"),
        ("gs://bucket", ("a", "b"), "only s3:// has"),
        ("s3://bucket", ("a", ""), "or neither"),
        ("s3://bucket", ("", "b"), "or neither"),
        ("az://container", ("", ""), "cannot be opened: Generic MicrosoftAzure error"),
    ],
)
async def test_a_store_that_there_cannot_be_is_refused_at_start(
    url: str, keys: tuple[str, str], problem: str
) -> None:
    settings = Settings(store_url=url, store_access_key_id=keys[0], store_secret_access_key=keys[1])
    with pytest.raises(SettingsError) as told:
        async with open_store(settings):
            pass
    (text,) = told.value.problems
    assert text.startswith("store_url ")
    assert problem in text


async def test_the_settings_open_their_store(tmp_path: Path, swift: ObjectServer) -> None:
    async with open_store(Settings(store_url=f"file://{tmp_path / 'content'}")) as folder:
        assert isinstance(folder, FolderStore)
        await put(folder, "key", b"content")
    assert (tmp_path / "content" / path_of("key")).read_bytes() == b"content"
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET_ACCESS_KEY}\n", encoding="utf-8")
    environ = {
        "GATEWAY_STORE_URL": swift.url(),
        "GATEWAY_STORE_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "GATEWAY_STORE_SECRET_ACCESS_KEY_FILE": str(secret),
    }
    settings = load(file=None, environ=environ, flags={}, serving=False)
    async with open_store(settings) as bucket:
        await put(bucket, "key", b"content")
    path = f"{prefix_of(settings.store_url)}/{path_of('key')}"
    found = swift.admin().get_object(Bucket=BUCKET, Key=path)
    assert found["Body"].read() == b"content"


@pytest.mark.parametrize("url", ["gs://bucket/a", "az://container/a?account=mine", "s3://bucket/a"])
async def test_a_store_of_every_kind_can_be_opened_without_asking_it(url: str) -> None:
    async with open_store_url(url) as store:
        assert store.path("key") is None


async def test_credentials_come_from_the_environment_unless_the_settings_have_some(
    swift: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    async with open_store_url(swift.url()) as store:
        await store.check()
    # A token belongs to a key of its own, and an endpoint in the URL was meant.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    async with open_store_url(swift.url()) as store:
        with pytest.raises(StoreUnavailable):
            await store.check()
    async with open_store_url(
        swift.url(), access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY
    ) as store:
        await store.check()


async def test_http_is_only_spoken_where_the_url_says_so(
    moto: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    async with open_store_url(f"s3://{BUCKET}/a?region=us-east-1", **keys) as store:
        with pytest.raises(StoreUnavailable):
            await store.check()
    async with open_store_url(moto.url(), **keys) as store:
        await store.check()


@pytest.mark.parametrize(
    ("parameters", "origin", "path"),
    [
        ("endpoint=https://s3.example", "https://s3.example", "/bucket/a/"),
        ("endpoint=https://s3.example/", "https://s3.example", "/bucket/a/"),
        ("endpoint=https://h.example:8/s3", "https://h.example:8", "/s3/bucket/a/"),
        (
            "endpoint=https://s3.example:8&virtual_hosted_style=true",
            "https://bucket.s3.example:8",
            "/a/",
        ),
        ("region=eu-west-1", "https://s3.eu-west-1.amazonaws.com", "/bucket/a/"),
        (
            "region=eu-west-1&virtual_hosted_style=true",
            "https://bucket.s3.eu-west-1.amazonaws.com",
            "/a/",
        ),
    ],
)
async def test_a_bucket_is_named_in_the_path_or_in_the_host(
    parameters: str, origin: str, path: str
) -> None:
    async with open_store_url(
        f"s3://bucket/a?{parameters}", access_key_id="a", secret_access_key="b"
    ) as store:
        link = await store.link("key", seconds=5)
    assert link is not None
    parts = urlsplit(link)
    assert f"{parts.scheme}://{parts.netloc}" == origin
    assert parts.path == f"{path}{path_of('key')}"


WITHOUT_THE_LIBRARY = """
import asyncio, sys
sys.modules["obstore"] = None
from gateway.config import Settings, SettingsError
from gateway.setup import open_store

async def main():
    async with open_store(Settings(store_url=f"file:{sys.argv[1]}")) as store:
        await store.check()
    try:
        async with open_store(Settings(store_url="s3://bucket/a")):
            pass
    except SettingsError as error:
        print(error)

asyncio.run(main())
"""


def test_without_the_library_a_folder_works_and_a_bucket_says_what_to_install(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_LIBRARY, tmp_path / "content"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == (
        "store_url needs a library for s3://: pip install 'video-gateway[objects]'\n"
    )
