"""How is a claim kept for longer? Scripts only."""

from gateway.db.script import Script, Sql


def renew_lease(
    table: str, row_id: str, claim_number: int, *, held: str = "due_at", lease_ends_at: int
) -> Script[bool]:
    """Move the end of a row's lease; tell whether the claim was still ours.

    `held` is the column that is NULL once nothing is left to be done under a claim. One row to a
    script: it runs beside others, and whoever waits for a second row while he holds a first can
    meet somebody who does the same the other way round.
    """
    kept = yield Sql(
        f"UPDATE {table} SET due_at = $3"
        f" WHERE id = $1 AND claim_number = $2 AND {held} IS NOT NULL RETURNING id",
        (row_id, claim_number, lease_ends_at),
    )
    return bool(kept)
