"""Are the simulator's videos and images real ones?"""

import io

import av
import pytest
from PIL import Image

from gateway.simulator.images import make_spritesheet, make_thumbnail
from gateway.simulator.mp4 import LONGEST_SECONDS, PICTURES_PER_SECOND, make_mp4

_SIZES_AND_SECONDS = [
    (720, 1280, 4),
    (1280, 720, 8),
    (1024, 1792, 1),
    (1792, 1024, 12),
    (1080, 1920, 2),
    (1920, 1080, 1),
    (854, 480, 15),
    (848, 480, 1),
    (3840, 2160, 1),
    (720, 1280, 60),
]


@pytest.mark.parametrize(("width", "height", "seconds"), _SIZES_AND_SECONDS)
def test_every_frame_of_a_video_decodes_at_its_size(width: int, height: int, seconds: int) -> None:
    data = make_mp4(width=width, height=height, seconds=seconds, tag=b"one")
    with av.open(io.BytesIO(data), "r") as container:
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert sizes == [(width, height)] * (seconds * PICTURES_PER_SECOND)


def test_a_video_has_sound_that_decodes_and_lasts_as_long() -> None:
    data = make_mp4(width=720, height=1280, seconds=8, tag=b"one")
    with av.open(io.BytesIO(data), "r") as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        samples = sum(int(frame.samples) for frame in container.decode(sound))
    assert 0 <= samples / 48_000 - 8 < 0.05


def test_the_bars_move_on_every_second() -> None:
    data = make_mp4(width=720, height=1280, seconds=2, tag=b"one")
    with av.open(io.BytesIO(data), "r") as container:
        corners = [bytes(frame.planes[0])[:1] for frame in container.decode(video=0)]
    assert len(set(corners[:PICTURES_PER_SECOND])) == 1
    assert corners[0] != corners[PICTURES_PER_SECOND]


def test_the_description_stands_before_the_content() -> None:
    data = make_mp4(width=720, height=1280, seconds=4, tag=b"one")
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_tag_makes_the_bytes_differ_and_nothing_else_does() -> None:
    one, again, other = (
        make_mp4(width=720, height=1280, seconds=4, tag=tag) for tag in (b"one", b"one", b"two")
    )
    assert one == again
    assert one != other
    assert len(one) == len(other)


def test_a_video_can_be_filled_up_to_a_size_and_still_plays() -> None:
    data = make_mp4(width=720, height=1280, seconds=1, tag=b"one", at_least_bytes=20_000_000)
    assert len(data) == 20_000_000
    with av.open(io.BytesIO(data), "r") as container:
        assert len(list(container.decode(video=0))) == PICTURES_PER_SECOND


@pytest.mark.parametrize("seconds", [0, LONGEST_SECONDS + 1])
def test_seconds_out_of_range_make_no_video(seconds: int) -> None:
    with pytest.raises(ValueError, match="seconds"):
        make_mp4(width=720, height=1280, seconds=seconds, tag=b"one")


def test_a_thumbnail_is_webp_and_a_spritesheet_is_jpeg() -> None:
    thumbnail = Image.open(io.BytesIO(make_thumbnail(width=720, height=1280, tag=b"one")))
    sheet = Image.open(io.BytesIO(make_spritesheet(width=720, height=1280, tag=b"one")))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (720, 1280))
    assert (sheet.format, sheet.size) == ("JPEG", (720, 960))


def test_images_of_different_videos_differ() -> None:
    for make in (make_thumbnail, make_spritesheet):
        one, other = (make(width=720, height=1280, tag=tag) for tag in (b"one", b"two"))
        assert one != other
