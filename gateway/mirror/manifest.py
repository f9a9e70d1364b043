"""What is an exported file called, and what does the manifest of an export say of it?"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.db.script import Row, Script, Sql
from gateway.mirror.kept import Kept
from gateway.mirror.kinds import file_name

MANIFEST: Final = "manifest.jsonl"
# As clients are shown them.
_SHOWN: Final = ("model", "size", "seconds")


def read_videos(video_ids: Sequence[str]) -> Script[Mapping[str, Row]]:
    """Return what exporting needs of these videos, at most a page of them, by id.

    Columns: id, upstream, object, created_at, completed_at, namesakes (how many videos have that
    upstream id: one, or several of different upstreams).
    """
    marks = ", ".join(f"${number}" for number in range(1, len(video_ids) + 1))
    rows = yield Sql(
        "SELECT id, upstream, object, created_at, completed_at, (SELECT COUNT(*) FROM videos AS"
        " other WHERE other.upstream_id = videos.upstream_id) AS namesakes"
        f" FROM videos WHERE id IN ({marks})",
        tuple(video_ids),
    )
    return {row["id"]: row for row in rows}


def exported_name(asset: Kept, *, namesakes: int) -> str:
    """Return the name of an exported file: no two assets ever have the same, in any export.

    It is the upstream id, where that is a plain word, and with our own id behind it where another
    could be called so: a spritesheet may be of the same type as its video's thumbnail.
    """
    name = file_name(asset.upstream_id, asset.content_type)
    stem, _, extension = name.rpartition(".")
    # Without a dot of its own, no plain name looks like one with an id behind it.
    is_plain = stem == asset.upstream_id and "." not in stem
    if is_plain and namesakes == 1 and asset.variant != "spritesheet":
        return name
    return f"{stem}.{asset.asset_id}.{extension}"


def manifest_line(asset: Kept, video: Row, *, name: str) -> str:
    """Return the line about one file: a JSON object."""
    shown: Mapping[str, Any] = json.loads(video["object"] or "{}")
    facts = {
        "id": asset.video_id,
        "upstream": video["upstream"],
        "upstream_id": asset.upstream_id,
        **{field: shown.get(field) for field in _SHOWN},
        "created_at": video["created_at"],
        "completed_at": video["completed_at"],
        "variant": asset.variant,
        "file": name,
        "size_bytes": asset.size_bytes,
        "sha256": asset.sha256,
        "content_type": asset.content_type,
    }
    return json.dumps(facts, ensure_ascii=False) + "\n"
