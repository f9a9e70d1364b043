"""Is the sum of the entries every report, every export and every balance? Random purchases."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from functools import partial
from itertools import chain, combinations
from typing import Any

import pytest
from cli_tools import Terminal, parsed
from databases import a_folder
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import bench, examples, rows
from purchases import DAYS, SINCE, UNTIL, Purchase, buy_all, purchases

from gateway.billing.audit import audit
from gateway.billing.balances import accounting_day
from gateway.billing.costs import GROUPS, Asked, read_costs
from gateway.billing.entries import read_entries
from gateway.billing.money import parse_usd
from gateway.db.script import Row, Script

FIRST_DAY = date(2026, 11, 28)
SUMS = ("spent_micros", "list_micros", "cost_micros", "videos", "clip_seconds")
GROUPINGS = list(chain.from_iterable(combinations(GROUPS, size) for size in range(len(GROUPS) + 1)))


def all_entries() -> Script[list[dict[str, Any]]]:
    """Every entry with the facts of its hold, as they stand in the tables."""
    return (
        yield from rows(
            "SELECT entries.id, entries.hold_id, entries.held_micros, entries.spent_micros,"
            " entries.list_micros, entries.cost_micros, holds.accounting_day AS day,"
            " holds.project_id AS project, holds.key_id AS key, holds.model, holds.size,"
            " holds.operation, holds.clip_seconds, holds.model || ', ' || holds.size || ', '"
            " || holds.operation AS line_item FROM entries JOIN holds"
            " ON holds.id = entries.hold_id"
        )
    )


def every_grouping(first: date, last: date) -> Script[dict[tuple[str, ...], list[Row]]]:
    found = {}
    for groups in GROUPINGS:
        asked = Asked(first_day=first, last_day=last, group_by=groups)
        found[groups] = yield from read_costs(asked)
    return found


def summed(
    entries: Iterable[Mapping[str, Any]], groups: tuple[str, ...], *, first: date, last: date
) -> dict[tuple[str, ...], list[int]]:
    """What a report of those days must say: SUMS by group; groups of zeros left out."""
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(SUMS))
    by_hold: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        if first.isoformat() <= entry["day"] <= last.isoformat():
            by_hold[entry["hold_id"]].append(entry)
    for of_hold in by_hold.values():
        total = sums[tuple(of_hold[0][group] for group in groups)]
        for place, column in enumerate(SUMS[:3]):
            total[place] += sum(entry[column] for entry in of_hold)
        if sum(entry["list_micros"] for entry in of_hold) > 0:
            total[3] += 1
            total[4] += of_hold[0]["clip_seconds"]
    return {group: total for group, total in sums.items() if any(total)}


def reported(
    found: Iterable[Row | Mapping[str, Any]], groups: tuple[str, ...]
) -> dict[tuple[str, ...], list[int]]:
    told = {
        tuple(row[group] for group in groups): [int(row[name]) for name in SUMS] for row in found
    }
    return {group: total for group, total in told.items() if any(total)}


def printed(row: Mapping[str, Any]) -> list[int]:
    """The sums of a row that a command has printed."""
    amounts = [signed(row[f"{name}_usd"]) for name in ("spent", "list", "cost")]
    return [*amounts, int(row["videos"]), int(row["seconds"])]


def signed(text: str) -> int:
    return -parse_usd(text[1:]) if text.startswith("-") else parse_usd(text)


def read_in_pages(limit: int, **asked: Any) -> Script[list[Row]]:
    found: list[Row] = []
    after = None
    while page := (
        yield from read_entries(after=after, since=SINCE, until=UNTIL, limit=limit, **asked)
    ):
        found += page
        after = (page[-1]["created_at"], page[-1]["id"])
    return found


@pytest.mark.timeout(600)
def test_every_report_and_export_is_the_sum_of_the_entries() -> None:
    @examples(30)
    @given(
        bought=st.lists(purchases, max_size=12),
        first=st.integers(min_value=0, max_value=DAYS - 1),
        length=st.integers(min_value=0, max_value=DAYS - 1),
        limit=st.integers(min_value=1, max_value=4),
    )
    def they_are(bought: list[Purchase], first: int, length: int, limit: int) -> None:
        agree(bought, first, length, limit)

    they_are()


def agree(bought: list[Purchase], first: int, length: int, limit: int) -> None:
    with a_folder() as folder, bench(folder / "gateway.db") as database:
        database.run(partial(buy_all, bought))
        assert database.run(audit) == []
        entries = database.run(all_entries)
        some_days = (
            FIRST_DAY + timedelta(days=first),
            FIRST_DAY + timedelta(days=first + length),
        )
        for days in (some_days, (date(2026, 11, 1), date(2026, 12, 31))):
            found = database.run(partial(every_grouping, *days))
            for groups, reports in found.items():
                expected = summed(entries, groups, first=days[0], last=days[1])
                assert reported(reports, groups) == expected
        assert [row["id"] for row in database.run(partial(read_in_pages, limit))] == [
            row["id"] for row in database.run(partial(read_in_pages, 1000))
        ]
        assert {row["id"] for row in database.run(partial(read_in_pages, limit))} == {
            entry["id"] for entry in entries
        }
        of_key = database.run(partial(read_in_pages, limit, key_ids=["key_a", "key_c"]))
        assert {row["id"] for row in of_key} == {
            entry["id"] for entry in entries if entry["key"] != "key_b"
        }
        of_project = database.run(partial(read_in_pages, limit, project_ids=["proj_b"]))
        assert {row["id"] for row in of_project} == {
            entry["id"] for entry in entries if entry["project"] == "proj_b"
        }
        kept = database.run(partial(rows, "SELECT * FROM balances"))
        commands_agree(Terminal(folder / "gateway.db"), entries, kept, days=some_days)


def commands_agree(
    terminal: Terminal,
    entries: list[dict[str, Any]],
    balances: list[dict[str, Any]],
    *,
    days: tuple[date, date],
) -> None:
    """What is printed is what the entries add up to."""
    groups = ("day", "key", "model")
    words = ["spend", "report", f"--from={days[0]}", f"--to={days[1]}", "--group-by=day,key,model"]
    expected = summed(entries, groups, first=days[0], last=days[1])
    report = terminal.json(*words)
    told = {(row["day"], row["key_id"], row["model"]): printed(row) for row in report["rows"]}
    assert {group: sums for group, sums in told.items() if any(sums)} == expected
    columns = zip(*expected.values(), strict=True)
    assert printed(report["total"]) == ([sum(column) for column in columns] or [0] * len(SUMS))
    as_csv = parsed(terminal.run(*words, "--format=csv").stdout)
    assert {(row["day"], row["key_id"], row["model"]): printed(row) for row in as_csv} == told
    until = accounting_day(UNTIL)
    exported = parsed(
        terminal.run("ledger", "export", f"--from={accounting_day(SINCE)}", f"--to={until}").stdout
    )
    assert {row["entry_id"]: amounts(row) for row in exported} == {
        entry["id"]: [entry[f"{name}_micros"] for name in ("held", "spent", "list", "cost")]
        for entry in entries
    }
    for balance in balances:
        held, spent = in_balance(exported, balance)
        assert (held, spent) == (balance["held_micros"], balance["spent_micros"]), balance["id"]
    assert terminal.json("ledger", "audit") == []


def amounts(row: Mapping[str, str]) -> list[int]:
    return [signed(row[f"{name}_usd"]) for name in ("held", "spent", "list", "cost")]


def in_balance(exported: list[dict[str, str]], balance: Mapping[str, Any]) -> tuple[int, int]:
    """What an export says about one balance: held and spent."""
    characters = {"day": len("2026-11-30"), "month": len("2026-11"), "total": 0}
    begins = balance["period_start"][: characters[balance["period"]]]
    column = {"organization": None, "project": "project_id", "key": "key_id"}[balance["level"]]
    mine = [
        amounts(row)
        for row in exported
        if row["accounting_day"].startswith(begins)
        and (column is None or row[column] == balance["level_id"])
    ]
    return sum(row[0] for row in mine), sum(row[1] for row in mine)
