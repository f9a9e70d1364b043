"""What does LiteLLM's SDK get, told nothing but `api_base` and a key?

Run by the interpreter of its own environment; prints what it got as JSON. LiteLLM wraps ids before
it returns them and unwraps them when it asks.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import litellm  # type: ignore[import-not-found]
from litellm.types.videos.utils import (  # type: ignore[import-not-found]
    decode_video_id_with_provider,
)

DEADLINE_SECONDS = 30.0
LOOK_SECONDS = 0.2


def main() -> None:
    litellm.suppress_debug_info = True  # it would print advice where the result is read from
    told = json.loads(sys.argv[1])
    where = {"api_base": told["base_url"], "api_key": told["api_key"]}
    made = litellm.video_generation(
        prompt="a heron [[queue 1]]", model="openai/sora-2", seconds="8", size="1280x720", **where
    )
    with Path(told["image"]).open("rb") as image:
        pictured = litellm.video_generation(
            prompt="a wave", model="openai/sora-2", input_reference=image, **where
        )
    finished = _finished(made.id, where)
    content = litellm.video_content(video_id=made.id, **where)
    remixed = litellm.video_remix(video_id=made.id, prompt="at dusk", **where)
    listed = litellm.video_list(custom_llm_provider="openai", **where)
    found = {
        "made": _plain(made),
        "pictured": _plain(pictured),
        "finished": _plain(finished),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "remixed": _plain(remixed),
        "listed": [_id(video["id"]) for video in _data(listed)],
        "refused": _refused(where),
    }
    os.write(sys.stdout.fileno(), json.dumps(found).encode())


def _finished(video_id: str, where: dict[str, str]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        video = litellm.video_status(video_id=video_id, **where)
        if video.status in {"completed", "failed"}:
            return video
        time.sleep(LOOK_SECONDS)  # it has no helper that polls
    raise TimeoutError(video_id)


def _refused(where: dict[str, str]) -> dict[str, Any]:
    try:
        litellm.video_generation(prompt="a cat", model="openai/sora-2", seconds="5", **where)
    except litellm.exceptions.BadRequestError as error:
        return {"status": error.status_code, "message": error.message}
    return {"status": 200, "message": ""}


def _data(listed: Any) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = listed["data"] if isinstance(listed, dict) else listed
    return data


def _plain(video: Any) -> dict[str, Any]:
    said: dict[str, Any] = video.model_dump(mode="json")
    return said | {"id": _id(said["id"])}


def _id(wrapped: str) -> str:
    return str(decode_video_id_with_provider(wrapped)["video_id"])


if __name__ == "__main__":
    main()
