"""An S3 that checks signatures and their expiry for real: OpenStack Swift, all in one process.

`python serve_swift.py FOLDER PAGE` prints the port of its S3 API in one line, and serves until its
standard input ends, which it does when whoever started it has died, however that happened. What it
has is in the folder, and there again when it is started anew. A listing has PAGE objects at a time.
"""

import os
import sys
from pathlib import Path
from typing import Any, Final

import eventlet  # type: ignore[import-untyped]
from eventlet import wsgi
from eventlet.patcher import original  # type: ignore[import-untyped]
from swift.common.ring import RingBuilder  # type: ignore[import-untyped]
from swift.common.utils import (  # type: ignore[import-untyped]
    NullLogger,
    monkey_patch,
    set_swift_dir,
)
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # type: ignore[import-untyped]

HOST: Final = "127.0.0.1"
# The proxy comes last: its S3 API is asked only when the rest is there.
SERVERS: Final = ("account", "container", "object", "proxy")
DISK: Final = "disk"
FILTERS: Final = (
    *("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "s3api"),
    *("tempauth", "copy", "slo"),
)


def main(folder: Path, *, page: int) -> None:
    monkey_patch()
    sockets = {name: eventlet.listen((HOST, 0), backlog=128) for name in SERVERS}
    ports = {name: listening.getsockname()[1] for name, listening in sockets.items()}
    _configure(folder, ports, page=page)
    set_swift_dir(str(folder))
    for name, listening in sockets.items():
        app = loadapp(str(folder / f"{name}.conf"), global_conf={"log_name": name})
        eventlet.spawn(_serve, listening, app)
    print(ports["proxy"], flush=True)  # noqa: T201 - what it was started for
    # A thread of the system: this one gives way to its own green threads only.
    original("threading").Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        eventlet.sleep(3600)


def _serve(listening: Any, app: Any) -> None:
    wsgi.server(
        listening,
        app,
        NullLogger(),
        protocol=SwiftHttpProtocol,
        capitalize_response_headers=False,
    )


def _end_with_stdin() -> None:
    while original("os").read(0, 1):
        pass
    os._exit(0)


def _configure(folder: Path, ports: dict[str, int], *, page: int) -> None:
    (folder / DISK).mkdir(exist_ok=True)
    _write(
        folder / "swift.conf",
        "[swift-hash]",
        "swift_hash_path_suffix = tests",
        "[storage-policy:0]",
        "name = only",
        "default = yes",
    )
    for name in SERVERS[:-1]:
        _ring(folder / f"{name}.ring.gz", port=ports[name])
        _write(
            folder / f"{name}.conf",
            *_defaults(folder, port=ports[name]),
            f"devices = {folder}",
            "mount_check = false",
            "[pipeline:main]",
            f"pipeline = {name}-server",
            f"[app:{name}-server]",
            f"use = egg:swift#{name}",
        )
    settings = {
        # The key test:tester, whose secret is testing.
        "tempauth": "user_test_tester = testing .admin",
        "s3api": f"max_bucket_listing = {page}",
    }
    _write(
        folder / "proxy.conf",
        *_defaults(folder, port=ports["proxy"]),
        "[pipeline:main]",
        f"pipeline = {' '.join(FILTERS)} proxy-server",
        "[app:proxy-server]",
        "use = egg:swift#proxy",
        "account_autocreate = true",
        *(
            line
            for name in FILTERS
            for line in (f"[filter:{name}]", f"use = egg:swift#{name}", settings.get(name, ""))
        ),
    )


def _defaults(folder: Path, *, port: int) -> list[str]:
    return ["[DEFAULT]", f"swift_dir = {folder}", f"bind_ip = {HOST}", f"bind_port = {port}"]


def _ring(file: Path, *, port: int) -> None:
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": HOST, "port": port, "device": DISK})
    builder.rebalance()
    builder.get_ring().save(str(file))


def _write(file: Path, *lines: str) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), page=int(sys.argv[2]))
