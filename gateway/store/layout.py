"""Under which path is a key kept, below the root of a folder or the prefix of a bucket?

The same in both, so that any tool that copies files moves content from one store to the other.
"""

import hashlib
import re
from typing import Final

from gateway.store import checked_key

SHARDS: Final = tuple(f"{number:02x}" for number in range(256))
_PATH: Final = re.compile(r"[0-9a-f]{2}/([^/]+)")


def path_of(key: str) -> str:
    """Return the path of a key; raises ValueError if it is none of ours."""
    # By hash: ids of one hour begin alike, and would all share one folder, or one end of the range
    # of names by which an object store spreads its load.
    return f"{hashlib.sha256(checked_key(key).encode()).hexdigest()[:2]}/{key}"


def key_at(path: str) -> str | None:
    """Return the key whose path this is; None where it is somebody else's."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    try:
        return found[1] if path_of(found[1]) == path else None
    except ValueError:
        return None
