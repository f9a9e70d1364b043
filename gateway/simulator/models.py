"""What does each model offer, and at what price?

Typed by hand from the relay's own pages, and from nothing else, so that it can disagree with
whoever calls. Three families share `/v1/videos`:

sora  Seconds are the strings "4", "8" and "12" (default "4"); a number is refused. sora-2 makes
      720p only; sora-2-pro also 1024p and 1080p, at three rates. Billed: seconds x rate of the
      size. Unknown parameters are refused. An input_reference is a file of exactly `size` pixels.
grok  Seconds "1" to "15" (default "8"); the tier is the shorter side (480p unless said), and each
      input image costs extra. A video blocked by moderation is `completed` without content, and
      billed.
veo   Seconds "4", "6", "8" (1080p and above "8" only); a price per request; unknown parameters
      are dropped without a word. The object calls itself `task_…`, repeats the id as `task_id`,
      and tells neither seconds, size, prompt nor expires_at.

Money is whole micros (millionths of a US dollar).
"""

from collections.abc import Mapping
from dataclasses import dataclass

VEO_SIZES = ("1280x720", "720x1280", "1920x1080", "1080x1920", "3840x2160", "2160x3840")
VEO_LONG_SECONDS = "8"
VEO_LONG_ONLY = VEO_SIZES[2:]

_SORA_SECONDS = ("4", "8", "12")
_GROK_SECONDS = tuple(str(seconds) for seconds in range(1, 16))


@dataclass(frozen=True, slots=True)
class Model:
    """What one model offers.

    Attributes:
        family: "sora", "grok" or "veo".
        rates: micros per second, by size (sora) or by shorter side in pixels (grok).
        seconds: the accepted values of `seconds`; the first of sora's is its default.
        default_seconds: used where the request says none.
        default_size: the same.
        request_micros: the price of one request, where seconds do not count.
        image_micros: the price of one input image.
        bills_moderated: a video blocked by moderation is billed.
    """

    family: str
    rates: Mapping[str, int]
    seconds: tuple[str, ...]
    default_seconds: str
    default_size: str
    request_micros: int | None = None
    image_micros: int = 0
    bills_moderated: bool = False


def _sora(**rates: int) -> Model:
    by_size = {
        size: rate
        for tier, rate in rates.items()
        for size in {
            "tier_720p": ("720x1280", "1280x720"),
            "tier_1024p": ("1024x1792", "1792x1024"),
            "tier_1080p": ("1080x1920", "1920x1080"),
        }[tier]
    }
    return Model("sora", by_size, _SORA_SECONDS, "4", "720x1280")


def _grok(*, image_micros: int, rates: Mapping[str, int]) -> Model:
    return Model(
        "grok",
        rates,
        _GROK_SECONDS,
        "8",
        "854x480",
        image_micros=image_micros,
        bills_moderated=True,
    )


def _veo(*, request_micros: int) -> Model:
    return Model("veo", {}, ("4", "6", "8"), "4", "1280x720", request_micros=request_micros)


_SORA_2 = _sora(tier_720p=100_000)
_SORA_2_PRO = _sora(tier_720p=300_000, tier_1024p=500_000, tier_1080p=700_000)
MODELS: Mapping[str, Model] = {
    "sora-2": _SORA_2,
    "sora-2-2025-10-06": _SORA_2,
    "sora-2-2025-12-08": _SORA_2,
    "sora-2-pro": _SORA_2_PRO,
    "sora-2-pro-2025-10-06": _SORA_2_PRO,
    "grok-imagine-video": _grok(image_micros=2_000, rates={"480": 50_000, "720": 70_000}),
    "grok-imagine-video-1.5": _grok(
        image_micros=10_000, rates={"480": 80_000, "720": 140_000, "1080": 250_000}
    ),
    "grok-imagine-video-1.5-lite": _grok(
        image_micros=10_000, rates={"480": 20_000, "720": 30_000, "1080": 140_000}
    ),
    "veo-3.1-fast-generate-preview": _veo(request_micros=300_000),
    "veo-3.1-generate-preview": _veo(request_micros=1_200_000),
}
