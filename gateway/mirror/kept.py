"""Which content is kept, and what is written down when it has been read again? Scripts only.

Kept is what was mirrored and not removed since. Whoever reads content again takes long over it:
each write about it says how the record looked when that began, so that another mirroring of the
same asset, or its removal, wins.
"""

from dataclasses import dataclass
from typing import Final

from gateway.db.script import Script, Sql, Value
from gateway.mirror.keeping import IS_KEPT

# Found damaged when the upstream's copy had gone, or could not be had any more.
_IS_LOST: Final = (
    "assets.gone_at IS NOT NULL AND assets.damaged_at IS NOT NULL AND assets.removed_at IS NULL"
)
_COLUMNS: Final = (
    "assets.id, assets.video_id, assets.project_id, videos.upstream_id, assets.variant,"
    " assets.content_type, assets.size_bytes, assets.sha256, assets.expires_at,"
    " COALESCE(assets.mirrored_at, 0) AS mirrored_at, assets.verified_at, assets.claim_number"
)
_SAME: Final = "id = $1 AND claim_number = $2 AND sha256 = $3 AND removed_at IS NULL"
_UNCHANGED: Final = f"{_SAME} AND mirrored_at = $4"


@dataclass(frozen=True, slots=True)
class Kept:
    """An asset that is in the store, as its record says.

    Attributes:
        asset_id: also its key in the store.
        expires_at: when the upstream's copy goes.
        mirrored_at: 0 where it was lost.
    """

    asset_id: str
    video_id: str
    project_id: str
    upstream_id: str
    variant: str
    content_type: str
    size_bytes: int
    sha256: str
    expires_at: int
    mirrored_at: int
    verified_at: int
    claim_number: int


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is."""

    assets: int
    size_bytes: int


def list_to_verify(
    *, before: int, project_id: str | None, after: Kept | None, limit: int
) -> Script[list[Kept]]:
    """Return what was last verified at a moment or before, longest ago first."""
    where, args = _of_project(f"{IS_KEPT} AND assets.verified_at <= $1", [before], project_id)
    if after is not None:
        args += [after.verified_at, after.asset_id]
        where += f" AND (assets.verified_at, assets.id) > (${len(args) - 1}, ${len(args)})"
    return (yield from _list(where, args, order="assets.verified_at, assets.id", limit=limit))


def list_kept(*, project_id: str | None, after: Kept | None, limit: int) -> Script[list[Kept]]:
    """Return what is kept, in the order in which it was mirrored."""
    where, args = _of_project(IS_KEPT, [], project_id)
    if after is not None:
        args += [after.mirrored_at, after.asset_id]
        where += f" AND (assets.mirrored_at, assets.id) > (${len(args) - 1}, ${len(args)})"
    return (yield from _list(where, args, order="assets.mirrored_at, assets.id", limit=limit))


def list_lost(*, project_id: str | None, after: Kept | None, limit: int) -> Script[list[Kept]]:
    """Return what was kept, was found damaged, and could not be fetched again."""
    where, args = _of_project(f"{_IS_LOST} AND assets.sha256 IS NOT NULL", [], project_id)
    if after is not None:
        args.append(after.asset_id)
        where += f" AND assets.id > ${len(args)}"
    return (yield from _list(where, args, order="assets.id", limit=limit))


def count_to_verify(*, before: int, project_id: str | None) -> Script[Amount]:
    """Return how much list_to_verify lists."""
    where, args = _of_project(f"{IS_KEPT} AND assets.verified_at <= $1", [before], project_id)
    return (yield from _count(where, args))


def count_kept(*, project_id: str | None) -> Script[Amount]:
    """Return how much is kept."""
    where, args = _of_project(IS_KEPT, [], project_id)
    return (yield from _count(where, args))


def some_kept(*, limit: int) -> Script[list[str]]:
    """Return the ids of some assets that are kept: of the first mirrored, and of the last."""
    found: dict[str, None] = {}
    for direction in ("ASC", "DESC"):
        rows = yield Sql(
            f"SELECT id FROM assets WHERE {IS_KEPT}"
            f" ORDER BY mirrored_at {direction}, id {direction} LIMIT $1",
            (limit,),
        )
        found |= dict.fromkeys(row["id"] for row in rows)
    return list(found)


def is_unchanged(asset: Kept) -> Script[bool]:
    """Tell whether the record still looks as it did, and the asset is still kept."""
    return bool((yield Sql(f"SELECT id FROM assets WHERE {_UNCHANGED}", _as_it_was(asset))))


def write_verified(asset: Kept, *, now: int) -> Script[bool]:
    """Write down that the store has the right bytes; tell whether the record had not changed."""
    rows = yield Sql(
        f"UPDATE assets SET verified_at = $5 WHERE {_UNCHANGED} RETURNING id",
        (*_as_it_was(asset), now),
    )
    return bool(rows)


def write_damaged(asset: Kept, *, failure: str, again: bool, now: int) -> Script[bool]:
    """Write down that the store has not the right bytes, so that they are served no more.

    With `again` the mirror fetches the asset at once, as if for the first time; without, it is
    lost. Tells whether the record had not changed. Of two that find the same in the same second
    both are told so: which of them wrote it cannot be told from a script that was run twice.
    """
    rows = yield Sql(
        "UPDATE assets SET damaged_at = $5, mirrored_at = NULL, failure = $6, attempts = 0,"
        " alarmed_at = NULL, due_at = CAST($7 AS BIGINT), gone_at = CAST($8 AS BIGINT)"
        f" WHERE {_UNCHANGED} RETURNING id",
        (*_as_it_was(asset), now, failure, now if again else None, None if again else now),
    )
    if rows:
        return True
    # A script whose COMMIT was not answered is run again whole, and finds its own traces.
    own = yield Sql(
        f"SELECT id FROM assets WHERE {_SAME} AND mirrored_at IS NULL AND damaged_at = $4",
        (asset.asset_id, asset.claim_number, asset.sha256, now),
    )
    return bool(own)


def write_found_again(asset: Kept, *, now: int) -> Script[None]:
    """Write down that the store has what was lost, so that it is served again."""
    yield Sql(
        "UPDATE assets SET mirrored_at = $4, verified_at = $4, damaged_at = NULL, gone_at = NULL,"
        f" failure = NULL WHERE {_SAME} AND gone_at IS NOT NULL AND damaged_at IS NOT NULL",
        (asset.asset_id, asset.claim_number, asset.sha256, now),
    )


def _as_it_was(asset: Kept) -> tuple[Value, ...]:
    return (asset.asset_id, asset.claim_number, asset.sha256, asset.mirrored_at)


def _of_project(where: str, args: list[Value], project_id: str | None) -> tuple[str, list[Value]]:
    if project_id is None:
        return where, args
    return f"{where} AND assets.project_id = ${len(args) + 1}", [*args, project_id]


def _list(where: str, args: list[Value], *, order: str, limit: int) -> Script[list[Kept]]:
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM assets JOIN videos ON videos.id = assets.video_id WHERE {where}"
        f" ORDER BY {order} LIMIT ${len(args) + 1}",
        (*args, limit),
    )
    return [Kept(*row) for row in rows]


def _count(where: str, args: list[Value]) -> Script[Amount]:
    ((assets, size_bytes),) = yield Sql(
        f"SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM assets WHERE {where}",
        tuple(args),
    )
    return Amount(assets, size_bytes)
