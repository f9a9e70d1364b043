"""Does the installed gateway serve? `helm test` runs this in a pod: URL of the API, URL of ops.

It is ready; it refuses a key that nobody has, in the words of OpenAI's API; and where a virtual key
is mounted, it lists the models with it. Nothing is bought.
"""  # noqa: INP001 - a program, in no package

import json
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

API, OPS = sys.argv[1:]
KEY = Path("/run/secrets/video-gateway/api_key")
SECONDS = 10


def get(url: str, key: str = "") -> tuple[int, str]:
    """Return status and body, and show them."""
    # The addresses are those of the chart's own services.
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            status, body = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read().decode()
    sys.stdout.write(f"{url}: {status} {body}\n")
    return status, body


status, _ = get(f"{OPS}/readyz?verbose")
if status != HTTPStatus.OK:
    sys.exit("it is not ready")

status, body = get(f"{API}/v1/models", "nobody")
if status != HTTPStatus.UNAUTHORIZED or json.loads(body)["error"]["code"] != "invalid_api_key":
    sys.exit("it did not refuse a key that nobody has")

if KEY.exists():
    status, _ = get(f"{API}/v1/models", KEY.read_text(encoding="utf-8").strip())
    if status != HTTPStatus.OK:
        sys.exit("it refused the key of the test")
