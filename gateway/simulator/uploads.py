"""What is inside an uploaded file?

The relay looks at the declared type and at the bytes, and believes neither alone.
"""

import io
import struct
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from gateway.simulator.answers import RefusedError, openai_error

_IMAGE_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_SIDES_AT = 80  # of a track header of version 0, from its name on
_MP4_MAGIC = b"ftyp"
_MP4_MAGIC_AT = 4


@dataclass(frozen=True, slots=True)
class Upload:
    """One file part of a multipart body.

    Attributes:
        filename: as declared.
        content_type: as declared.
        data: the bytes.
    """

    filename: str
    content_type: str
    data: bytes


def check_reference(upload: Upload, *, size: str | None) -> None:
    """Return if the file is an image of a declared and true type, of `size` pixels (None: any).

    Raises:
        RefusedError: with OpenAI's words.
    """
    expected = _IMAGE_FORMATS.get(upload.content_type)
    if expected is None:
        message = (
            f"Invalid file 'input_reference': unsupported mimetype ('{upload.content_type}'). "
            "Supported file formats are 'image/jpeg', 'image/png', 'image/webp', and 'video/mp4'."
        )
        raise _refused(message, code="unsupported_file_mimetype")
    try:
        with Image.open(io.BytesIO(upload.data), formats=tuple(_IMAGE_FORMATS.values())) as image:
            found, pixels = image.format, f"{image.width}x{image.height}"
    except (UnidentifiedImageError, OSError) as error:
        message = "Invalid file 'input_reference': the file is not a readable image."
        raise _refused(message, code="invalid_file") from error
    if found != expected:
        message = f"Invalid file 'input_reference': the file is not {upload.content_type}."
        raise _refused(message, code="invalid_file")
    if size is not None and pixels != size:
        message = "Inpaint image must match the requested width and height"
        raise _refused(message, code="invalid_value")


def clip_seconds_of(upload: Upload) -> int:
    """Return the whole seconds an uploaded MP4 lasts, at least 1.

    Raises:
        RefusedError: it is no MP4, or has no movie header.
    """
    data = upload.data
    at = data.find(b"mvhd")
    header = data[at + 8 : at + 24]
    if not data.startswith(_MP4_MAGIC, _MP4_MAGIC_AT) or at < 0 or len(header) < 16:  # noqa: PLR2004 - four fields
        message = "Invalid file 'video': the file is not a readable video/mp4."
        raise RefusedError(openai_error(message, param="video", code="invalid_file"))
    timescale, duration = (int(value) for value in struct.unpack(">8xII", header))
    return max(1, duration // max(1, timescale))


def clip_size_of(upload: Upload) -> str:
    """Return "WIDTHxHEIGHT" of an uploaded MP4, as its first track header says; 0x0 without one."""
    at = upload.data.find(b"tkhd")
    sides = upload.data[at + _SIDES_AT : at + _SIDES_AT + 8] if at >= 0 else b""
    width, height = struct.unpack(">II", sides.ljust(8, b"\0"))
    return f"{width >> 16}x{height >> 16}"


def _refused(message: str, *, code: str) -> RefusedError:
    return RefusedError(openai_error(message, param="input_reference", code=code))
