"""What is written down about an asset that is being mirrored?

Scripts only, fenced by claim numbers as polls are. `due_at` is when somebody has to look at it: the
next try, or, while `leased_at` is set, the end of the lease of whoever mirrors it now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.db.leases import renew_lease
from gateway.db.script import SKIP_LOCKED, Script, Sql
from gateway.mirror.fetched import Wanted
from gateway.telemetry.traces import about_trace

_CLAIM: Final = (
    "UPDATE assets SET due_at = $1, leased_at = $2, claim_number = claim_number + 1,"
    " attempts = attempts + 1 WHERE id IN (SELECT id FROM assets WHERE due_at <= $2"
)
_CLAIMED: Final = (
    "SELECT assets.id, assets.video_id, assets.claim_number, assets.variant, videos.upstream,"
    " videos.upstream_id, assets.created_at, assets.expires_at, assets.attempts, assets.sha256,"
    " assets.project_id, videos.key_id, videos.traceparent FROM assets"
    " JOIN videos ON videos.id = assets.video_id WHERE assets.id IN "
)
# Whoever writes an outcome gives the lease up with it.
_OURS: Final = "leased_at = NULL WHERE id = $1 AND claim_number = $2 RETURNING id"


@dataclass(frozen=True, slots=True)
class AssetClaim:
    """An asset that is ours to mirror until the lease ends.

    Attributes:
        asset_id: also its key in the store.
        expires_at: when the upstream's copy goes.
        sha256: of the bytes that the store once had, where they were found damaged.
        key_id: that bought the video; None: it was adopted.
        traceparent: of the span that bought the video.
    """

    asset_id: str
    video_id: str
    claim_number: int
    variant: str
    upstream: str
    upstream_id: str
    created_at: int
    expires_at: int
    attempts: int
    sha256: str | None
    project_id: str
    key_id: str | None
    traceparent: str | None

    @property
    def wanted(self) -> Wanted:
        """What is to be downloaded."""
        return Wanted(self.asset_id, self.upstream, self.upstream_id, self.variant)

    @property
    def log_facts(self) -> Mapping[str, Any]:
        """What the log says it is about."""
        return {
            "video_id": self.video_id,
            "variant": self.variant,
            "asset_id": self.asset_id,
            "upstream": self.upstream,
            "upstream_id": self.upstream_id,
            "project_id": self.project_id,
            "key_id": self.key_id,
            **about_trace(self.traceparent),
        }


def claim_assets(*, limit: int, lease_ends_at: int, now: int) -> Script[list[AssetClaim]]:
    """Take up to `limit` assets that are due, the nearest to its expiry first."""
    rows = yield Sql(
        f"{_CLAIM} ORDER BY expires_at, id LIMIT $3{SKIP_LOCKED}) RETURNING id",
        (lease_ends_at, now, limit),
    )
    return (yield from _claimed([row["id"] for row in rows]))


def claim_asset(asset_id: str, *, lease_ends_at: int, now: int) -> Script[list[AssetClaim]]:
    """Take one asset, if it is due."""
    rows = yield Sql(
        f"{_CLAIM} AND id = $3{SKIP_LOCKED}) RETURNING id", (lease_ends_at, now, asset_id)
    )
    return (yield from _claimed([row["id"] for row in rows]))


def give_back(claims: Sequence[AssetClaim], *, now: int) -> Script[None]:
    """Make claimed assets due again at once, but those whose outcome was written."""
    for claim in claims:
        yield Sql(
            "UPDATE assets SET due_at = $3, leased_at = NULL"
            " WHERE id = $1 AND claim_number = $2 AND due_at > $3",
            (claim.asset_id, claim.claim_number, now),
        )


def renew(claim: AssetClaim, *, lease_ends_at: int) -> Script[bool]:
    """Keep a claim for longer; tell whether it was still ours."""
    row = (claim.asset_id, claim.claim_number)
    return (yield from renew_lease("assets", *row, held="leased_at", lease_ends_at=lease_ends_at))


def write_mirrored(
    claim: AssetClaim, *, content_type: str, size_bytes: int, sha256: str, now: int
) -> Script[bool]:
    """Write down that the store has the asset; tell whether the claim was still ours."""
    rows = yield Sql(
        "UPDATE assets SET content_type = $3, size_bytes = $4, sha256 = $5, mirrored_at = $6,"
        f" verified_at = $6, damaged_at = NULL, due_at = NULL, failure = NULL, {_OURS}",
        (claim.asset_id, claim.claim_number, content_type, size_bytes, sha256, now),
    )
    return bool(rows)


def write_failure(claim: AssetClaim, *, failure: str, due_at: int) -> Script[bool]:
    """Write down why an asset is not mirrored yet, and when it is tried again."""
    rows = yield Sql(
        f"UPDATE assets SET failure = $3, due_at = $4, {_OURS}",
        (claim.asset_id, claim.claim_number, failure, due_at),
    )
    return bool(rows)


def write_absent(claim: AssetClaim, *, failure: str, now: int) -> Script[bool]:
    """Write down that the upstream has no such variant of the video."""
    rows = yield Sql(
        f"UPDATE assets SET failure = $3, absent_at = $4, due_at = NULL, {_OURS}",
        (claim.asset_id, claim.claim_number, failure, now),
    )
    return bool(rows)


def write_gone(claim: AssetClaim, *, failure: str, now: int) -> Script[bool]:
    """Write down that the upstream's copy expired before it was mirrored."""
    rows = yield Sql(
        f"UPDATE assets SET failure = $3, gone_at = $4, due_at = NULL, {_OURS}",
        (claim.asset_id, claim.claim_number, failure, now),
    )
    return bool(rows)


def is_removed(asset_id: str) -> Script[bool]:
    """Tell whether an asset is not to be kept any more."""
    rows = yield Sql("SELECT id FROM assets WHERE id = $1 AND removed_at IS NOT NULL", (asset_id,))
    return bool(rows)


def _claimed(asset_ids: Sequence[str]) -> Script[list[AssetClaim]]:
    if not asset_ids:
        return []
    marks = ", ".join(f"${number}" for number in range(1, len(asset_ids) + 1))
    claimed = yield Sql(
        f"{_CLAIMED}({marks}) ORDER BY assets.expires_at, assets.id", tuple(asset_ids)
    )
    return [AssetClaim(*row) for row in claimed]
