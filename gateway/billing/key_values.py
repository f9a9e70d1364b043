"""What does a key look like, and what is stored of it?

A virtual key is `vgk_`, 30 random base62 characters (about 178 bits) and 6 base62 characters of a
CRC-32 over what stands before them, so that a mistyped key is refused before any look-up. It is
stored as its SHA-256 alone: at that entropy a plain hash cannot be searched. Admin keys have the
same form and begin with `vga_`.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from typing import Final

VIRTUAL: Final = "vgk"
ADMIN: Final = "vga"
_RANDOM_CHARACTERS: Final = 30
_CHECK_CHARACTERS: Final = 6
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(r"vg[ka]_[0-9A-Za-z]{36}")


def new_value(kind: str) -> str:
    """Return a fresh key value of a kind (VIRTUAL or ADMIN) from the system's secure randomness."""
    body = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARACTERS))
    return f"{kind}_{body}{_check(f'{kind}_{body}')}"


def well_formed(value: str, kind: str) -> bool:
    """Tell whether a text can be a key of a kind at all: form and check digits."""
    if not _FORM.fullmatch(value) or not value.startswith(f"{kind}_"):
        return False
    return hmac.compare_digest(_check(value[:-_CHECK_CHARACTERS]), value[-_CHECK_CHARACTERS:])


def digest(value: str) -> str:
    """Return what is stored of a key value: its SHA-256 in hex."""
    return hashlib.sha256(value.encode()).hexdigest()


def redacted(kind: str, value_hint: str) -> str:
    """Return what may be shown of a key value."""
    return f"{kind}_…{value_hint}"


def _check(text: str) -> str:
    number = zlib.crc32(text.encode())
    return "".join(
        _BASE62[number // 62**place % 62] for place in range(_CHECK_CHARACTERS - 1, -1, -1)
    )
