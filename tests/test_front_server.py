"""Can a server in front send the files, told which by the gateway? With a real nginx."""

import asyncio
import hashlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from conftest import World, eventually, world
from plain_http import NO_TLS

from gateway.config import Settings

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""

LOCATIONS = """
location /v1/ {{ proxy_pass http://127.0.0.1:{gateway_port}; }}
location /content/ {{ internal; alias {content}/; }}
"""
MAX_BODY = Settings().max_body_bytes
README = Path(__file__).parent.parent / "README.md"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def nginx(
    folder: Path, *, gateway_port: int, content: Path, locations: str = LOCATIONS
) -> Iterator[str]:
    """Run nginx in front of a gateway and its folder; yield its base URL."""
    # Its workers are another user's, who must get into the folders.
    for one in (content, *content.parents):
        if one.is_relative_to(tempfile.gettempdir()):
            one.chmod(one.stat().st_mode | 0o055)
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    shown = locations.format(gateway_port=gateway_port, content=content)
    config.write_text(NGINX.format(folder=folder, port=port, locations=shown))
    with subprocess.Popen(["nginx", "-c", config, "-p", folder]) as process:
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


async def finished(made: World) -> tuple[str, str, bytes]:
    """Return a key's value, a mirrored video's id, and its true content."""
    key = await made.key()
    video_id = await made.buy(key)
    await made.mirrored(video_id)
    return key.value, video_id, await made.control.content(video_id)


async def test_nginx_sends_what_the_gateway_names(tmp_path: Path) -> None:
    async with world(
        tmp_path / "gateway", front_server="x-accel-redirect", front_server_prefix="/content/"
    ) as made:
        value, video_id, content = await finished(made)
        folder, port = tmp_path / "nginx", made.gateway.port
        with nginx(folder, gateway_port=port, content=made.settings.store_path) as base_url:
            await eventually(partial(listens, base_url))
            async with httpx.AsyncClient(
                verify=NO_TLS, base_url=base_url, trust_env=False
            ) as client:
                client.headers["authorization"] = f"Bearer {value}"
                await insist(client, f"/videos/{video_id}/content", content)


async def test_nginx_lets_through_what_the_readme_says(tmp_path: Path) -> None:
    block = README.read_text().partition("<!-- config: nginx -->\n```nginx\n")[2]
    locations = block.partition("```")[0].replace("{", "{{").replace("}", "}}")
    async with world(tmp_path / "gateway") as made:
        value, video_id, content = await finished(made)
        nginx_in_front = nginx(
            tmp_path / "nginx",
            gateway_port=made.gateway.port,
            content=made.settings.store_path,
            locations=locations.replace("127.0.0.1:8080", "127.0.0.1:{gateway_port}"),
        )
        with nginx_in_front as base_url:
            await eventually(partial(listens, base_url))
            async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
                client.headers["authorization"] = f"Bearer {value}"
                await insist(client, f"/videos/{video_id}/content", content)
                # What nginx itself would refuse has a page of HTML.
                for size, status in ((MAX_BODY - 1024, 400), (MAX_BODY + 1024, 413)):
                    body = b'{"prompt": "%s"}' % (b"x" * size)
                    headers = {"content-type": "application/json"}
                    answer = await client.post("/videos", content=body, headers=headers)
                    assert answer.status_code == status
                    assert answer.json()["error"]["message"]


async def insist(client: httpx.AsyncClient, path: str, content: bytes) -> None:
    whole = await client.get(path)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"].startswith('attachment; filename="video_')
    assert whole.headers["cache-control"] == "private"
    part = await client.get(path, headers={"range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, content[10:100])
    head = await client.head(path)
    assert head.headers["content-length"] == str(len(content))
    # Nobody gets to the files but through the gateway.
    stranger = await client.get(path, headers={"authorization": "Bearer nobody"})
    assert stranger.status_code == 401
    direct = await client.get("/../content/")
    assert direct.status_code == 404


async def listens(base_url: str) -> bool:
    url = httpx.URL(base_url)
    with socket.socket() as client:
        return client.connect_ex((url.host, url.port or 80)) == 0


@pytest.mark.parametrize(
    ("front_server", "prefix", "found"),
    [
        ("x-accel-redirect", "/content/", "/content/{path}"),
        ("x-accel-redirect", "/content", "/content/{path}"),
        ("x-sendfile", "/var/lib/a b", "/var/lib/a%20b/{path}"),
    ],
)
async def test_the_server_in_front_is_told_the_file_and_what_it_is(
    tmp_path: Path, front_server: str, prefix: str, found: str
) -> None:
    async with world(tmp_path, front_server=front_server, front_server_prefix=prefix) as made:
        value, video_id, content = await finished(made)
        asset = await made.asset(video_id)
        assert asset is not None
        (file,) = made.settings.store_path.glob(f"*/{asset['id']}")
        path = file.relative_to(made.settings.store_path).as_posix()
        async with made.client(value) as client:
            answer = await client.get(f"/videos/{video_id}/content")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers[front_server] == found.format(path=path)
        assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" in answer.headers


async def test_what_is_still_on_its_way_is_sent_by_the_gateway_itself(tmp_path: Path) -> None:
    async with world(
        tmp_path, front_server="x-accel-redirect", front_server_prefix="/content/"
    ) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[content:slow 20000]]")

        async def begun() -> bool:
            asset = await made.asset(video_id)
            return asset is not None and asset["attempts"] == 1

        await eventually(begun)
        async with made.client(key) as client, asyncio.timeout(30):
            answer = await client.get(f"/videos/{video_id}/content")
        assert "x-accel-redirect" not in answer.headers
        assert answer.content == await made.control.content(video_id)
