"""How are claims kept for longer? Scripts only."""

from collections.abc import Mapping

from gateway.db.script import Script, Sql


def renew_leases(
    table: str, claim_numbers: Mapping[str, int], *, held: str = "due_at", lease_ends_at: int
) -> Script[set[str]]:
    """Move the end of the leases of rows, by id; return the ids of those that are no longer ours.

    `held` is the column that is NULL once nothing is left to be done under a claim.
    """
    lost = set()
    for row_id, claim_number in claim_numbers.items():
        kept = yield Sql(
            f"UPDATE {table} SET due_at = $3"
            f" WHERE id = $1 AND claim_number = $2 AND {held} IS NOT NULL RETURNING id",
            (row_id, claim_number, lease_ends_at),
        )
        if not kept:
            lost.add(row_id)
    return lost
