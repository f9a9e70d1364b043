"""Is a list read page by page the list, whatever shares a moment?"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from databases import DatabaseServer, look, on_server, url_of
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import Bench, bench
from postgres_tools import DEBIANS, postgres_server

from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Script, Sql

# Few moments, so that many rows share one; ids whose bytewise order is not that of any language.
ROWS = st.dictionaries(
    st.sampled_from(["a", "B", "b", "_", "é", "z", "Z", "10", "9", "a/b", "a b", "proj_x"]),
    st.tuples(st.integers(1, 3), st.booleans()),
)
LISTED = Listed(
    columns="projects.id, projects.created_at",
    source="projects",
    table="projects",
    where="projects.name = $1",
    args=("shown",),
)


@pytest.fixture(scope="module")
def records(place: Path) -> Iterator[Bench]:
    with bench(place / "paging" / "gateway.db") as made:
        yield made


def projects(rows: dict[str, tuple[int, bool]]) -> Script[None]:
    yield Sql("DELETE FROM projects WHERE name IN ('shown', 'hidden')")
    for project_id, (created_at, shown) in rows.items():
        yield Sql(
            "INSERT INTO projects (id, name, created_at) VALUES ($1, $2, $3)",
            (project_id, "shown" if shown else "hidden", created_at),
        )


def expected(rows: dict[str, tuple[int, bool]], cursor: Cursor) -> tuple[list[str], bool]:
    """The page, and whether there are more beyond it in the direction that is read."""
    ordered = sorted(rows, key=lambda one: (rows[one][0], one.encode()))
    if cursor.newest_first:
        ordered.reverse()
    named = cursor.after if cursor.after is not None else cursor.before
    if named is not None and named not in rows:
        return [], False
    backwards = cursor.after is None and cursor.before is not None
    if named is not None:
        place = ordered.index(named)
        ordered = ordered[:place] if backwards else ordered[place + 1 :]
    ordered = [one for one in ordered if rows[one][1]]
    if backwards:
        return ordered[max(0, len(ordered) - cursor.limit) :], len(ordered) > cursor.limit
    return ordered[: cursor.limit], len(ordered) > cursor.limit


def ids(page: Page) -> list[str]:
    return [row["id"] for row in page.rows]


@given(
    rows=ROWS,
    limit=st.integers(0, 13),
    newest_first=st.booleans(),
    after=st.none() | st.sampled_from(["a", "B", "é", "9", "nobody"]),
    before=st.none() | st.sampled_from(["a", "Z", "_", "10", "nobody"]),
)
def test_a_page_is_what_stands_there_in_the_whole_list(
    records: Bench,
    rows: dict[str, tuple[int, bool]],
    limit: int,
    after: str | None,
    before: str | None,
    *,
    newest_first: bool,
) -> None:
    cursor = Cursor(limit=limit, newest_first=newest_first, after=after, before=before)
    records.run(partial(projects, rows))
    page = records.run(partial(read_page, LISTED, cursor))
    assert (ids(page), page.has_more) == expected(rows, cursor)


@given(rows=ROWS, limit=st.integers(1, 4), newest_first=st.booleans())
def test_page_after_page_is_the_whole_list_in_both_directions(
    records: Bench, rows: dict[str, tuple[int, bool]], limit: int, *, newest_first: bool
) -> None:
    records.run(partial(projects, rows))
    whole = records.run(partial(read_page, LISTED, Cursor(100, newest_first=newest_first)))
    forwards: list[str] = []
    cursor = Cursor(limit, newest_first=newest_first)
    while True:
        page = records.run(partial(read_page, LISTED, cursor))
        forwards += ids(page)
        if not page.has_more:
            break
        cursor = Cursor(limit, newest_first=newest_first, after=forwards[-1])
    assert forwards == ids(whole)
    backwards = forwards[-1:]
    while backwards:
        cursor = Cursor(limit, newest_first=newest_first, before=backwards[0])
        page = records.run(partial(read_page, LISTED, cursor))
        backwards = ids(page) + backwards
        if not page.has_more:
            break
    assert backwards == forwards


@pytest.mark.postgres("a file has no locale")
def test_every_text_that_is_kept_is_compared_byte_by_byte(records: Bench) -> None:
    def collations() -> Script[list[tuple[str, str]]]:
        found = yield Sql(
            "SELECT table_name || '.' || column_name AS name, collation_name"
            " FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'text'"
        )
        return [(row["name"], row["collation_name"]) for row in found]

    found = records.run(collations)
    assert ("projects.id", "C") in found
    assert {collation for _, collation in found} == {"C"}


@pytest.fixture
def english(tmp_path: Path) -> Iterator[Path]:
    """A database without tables on a server that compares as people in English do."""
    if not DEBIANS.exists():
        pytest.skip(f"only a server with ICU has such a locale, and none is in {DEBIANS}")
    path = tmp_path / "gateway.db"
    with postgres_server(programs_at=DEBIANS) as server, on_server(DatabaseServer(server)):
        url_of(path, locale="en-US")
        yield path


@pytest.mark.postgres("a file has no locale")
def test_a_page_is_in_the_order_of_bytes_whatever_the_locale_of_the_database_is(
    english: Path,
) -> None:
    names = ["a", "B", "b", "_", "é", "z", "Z", "10", "9", "a/b", "a b", "proj_x", "Proj_x"]
    plain = "SELECT column1 AS name FROM (VALUES ('B'), ('a'), ('Z'), ('b')) AS letters ORDER BY 1"
    assert [row["name"] for row in look(url_of(english), plain)] == ["a", "b", "B", "Z"]
    with bench(english) as records:
        records.run(partial(projects, dict.fromkeys(names, (1, True))))
        for newest_first in (True, False):
            found: list[str] = []
            while len(found) < len(names):
                after = found[-1] if found else None
                cursor = Cursor(2, newest_first=newest_first, after=after)
                page = ids(records.run(partial(read_page, LISTED, cursor)))
                assert page
                found += page
            assert found == sorted(names, key=str.encode, reverse=newest_first)


def test_a_row_that_comes_in_between_moves_no_page(records: Bench) -> None:
    rows = {name: (moment, True) for moment, name in enumerate("abc", start=1)}
    records.run(partial(projects, rows))
    first = records.run(partial(read_page, LISTED, Cursor(2)))
    assert ids(first) == ["c", "b"]
    records.run(partial(projects, rows | {"z": (9, True)}))
    second = records.run(partial(read_page, LISTED, Cursor(2, after="b")))
    assert (ids(second), second.has_more) == (["a"], False)
