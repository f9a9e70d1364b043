"""An S3 in memory, which believes every signature: moto, in a process of its own.

`python serve_moto.py` prints its port in one line, and serves until its standard input ends, which
it does when whoever started it has died, however that happened.
"""

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - what it was started for
    sys.stdin.read()


if __name__ == "__main__":
    main()
