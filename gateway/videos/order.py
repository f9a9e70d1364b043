"""What is a request that may be forwarded? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing.catalogue import Model, Rate

CREATE: Final = "create"
REMIX: Final = "remix"
EDIT: Final = "edit"
EXTENSION: Final = "extension"
CHARACTER: Final = "character"


@dataclass(frozen=True, slots=True)
class Attachment:
    """The uploaded file that goes with an order, under its true type."""

    field: str
    content_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request that was checked, with its price.

    Attributes:
        operation: CREATE, REMIX, EDIT, EXTENSION or CHARACTER.
        path: under the upstream's base URL, quoted.
        upstream: where it goes.
        model: None for a character.
        clip_seconds: the seconds that are billed.
        images_micros: the part of the price that is for reference images.
        price_micros: what will be held.
        fields: the parameters as they are forwarded, defaults included.
        shown: what is known beforehand of the video's own keys: prompt, model, seconds, size,
            remixed_from_video_id.
        attachment: the file that is forwarded with them, if any.
    """

    operation: str
    path: str
    upstream: str
    model: Model | None
    size: str
    clip_seconds: int
    rate: Rate
    images_micros: int
    price_micros: int
    fields: Mapping[str, Any]
    shown: Mapping[str, str]
    attachment: Attachment | None

    @property
    def kind(self) -> str:
        """What comes of it: a video or a character."""
        return "character" if self.operation == CHARACTER else "video"
