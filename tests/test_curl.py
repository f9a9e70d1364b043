"""Do the curl commands of the relay's own documents work unchanged in front of the gateway?"""

import json
import shutil
from pathlib import Path

import pytest
from conftest import World, eventually
from sdk_tools import image_in, run

# As the relay's documents have them, with its address and the key as variables.
TEXT_TO_VIDEO = """
curl --fail-with-body -sS --request POST \\
  --url "$BASE_URL/videos" \\
  --header "Authorization: Bearer $API_KEY" \\
  --header 'Content-Type: application/json' \\
  --data '{"model": "sora-2", "prompt": "A heron", "seconds": "8", "size": "1280x720"}'
"""
IMAGE_TO_VIDEO = """
curl --fail-with-body -sS --request POST \\
  --url "$BASE_URL/videos" \\
  --header "Authorization: Bearer $API_KEY" \\
  --header 'Content-Type: multipart/form-data' \\
  --form model=sora-2 \\
  --form 'prompt=Animate this scene: gentle waves lapping, cinematic camera push-in' \\
  --form seconds=8 \\
  --form size=720x1280 \\
  --form input_reference=@"$IMAGE"
"""
POLL = 'curl --fail-with-body -sS "$BASE_URL/videos/$ID" -H "Authorization: Bearer $API_KEY"'
DOWNLOAD = """
curl --fail-with-body -sS -L "$BASE_URL/videos/$ID/content" -H "Authorization: Bearer $API_KEY" \\
  -o "$OUTPUT"
"""


@pytest.mark.parametrize("command", [TEXT_TO_VIDEO, IMAGE_TO_VIDEO])
async def test_the_relays_own_curl_commands_buy_follow_and_download(
    studio: World, tmp_path: Path, command: str
) -> None:
    assert shutil.which("curl"), "this test drives curl itself: apt-get install curl"
    output = tmp_path / "video.mp4"
    environment = {
        "BASE_URL": studio.base_url,
        "API_KEY": (await studio.key()).value,
        "IMAGE": str(image_in(tmp_path)),
        "OUTPUT": str(output),
    }
    made = json.loads(await run(["bash", "-c", command], environment=environment))
    assert (made["object"], made["seconds"]) == ("video", "8")
    environment["ID"] = made["id"]

    async def completed() -> bool:
        video = json.loads(await run(["bash", "-c", POLL], environment=environment))
        return bool(video["status"] == "completed")

    await eventually(completed)
    await run(["bash", "-c", DOWNLOAD], environment=environment)
    assert output.read_bytes() == await studio.control.content(made["id"])
