"""What does the oldest Python SDK with `videos` get? It sends JSON where newer ones send multipart.

Run by the interpreter of its own environment; prints what it got as JSON.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import openai
from openai import OpenAI


def main() -> None:
    told = json.loads(sys.argv[1])
    client = OpenAI(base_url=told["base_url"], api_key=told["api_key"])
    raw = client.videos.with_raw_response.create(prompt="a heron", seconds="8", size="1280x720")
    made = client.videos.create_and_poll(prompt="a heron [[queue 1]]")
    image = client.videos.create_and_poll(
        prompt="a wave [[queue 1]]", input_reference=Path(told["image"])
    )
    remixed = client.videos.remix(made.id, prompt="at dusk")
    listed = [video.id for video in client.videos.list(limit=1)]
    content = client.videos.download_content(made.id).read()
    deleted = client.videos.delete(image.id)
    gone = None
    try:
        client.videos.retrieve(image.id)
    except openai.APIStatusError as error:
        gone = error.status_code
    found = {
        "version": openai.__version__,
        "content_type": raw.http_request.headers["content-type"],
        "first": raw.parse().to_dict(),
        "made": made.to_dict(),
        "image": image.to_dict(),
        "remixed": remixed.to_dict(),
        "listed": listed,
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "deleted": deleted.to_dict(),
        "gone": gone,
    }
    os.write(sys.stdout.fileno(), json.dumps(found).encode())


if __name__ == "__main__":
    main()
