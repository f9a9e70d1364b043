"""Which database does a URL name, and what of the URL may be seen?"""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.db.url import (
    DatabaseUrlError,
    Host,
    has_password,
    hosts_of,
    parse_database_url,
    shown,
)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///gateway.db", "gateway.db"),
        ("sqlite:///data/gateway.db", "data/gateway.db"),
        ("sqlite:////var/lib/gateway.db", "/var/lib/gateway.db"),
        ("sqlite:///what is%20it?.db", "what is%20it?.db"),
    ],
)
def test_three_slashes_and_a_path_are_a_file(url: str, path: str) -> None:
    assert parse_database_url(url) == Path(path)
    assert shown(url) == f"sqlite:///{Path(path).absolute()}"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://db.example.com/name", [("db.example.com", None)]),
        ("postgres://u@db.example.com:6432/name", [("db.example.com", 6432)]),
        ("postgresql://u:p%40%3A%2Fw@192.0.2.1:5432/name", [("192.0.2.1", 5432)]),
        ("postgresql://u@[2001:db8::1]:5432/name", [("2001:db8::1", 5432)]),
        ("postgresql://[::1]/name", [("::1", None)]),
        ("postgresql://a,b:6432,c/name", [("a", None), ("b", 6432), ("c", None)]),
        ("postgresql://[::1]:5,[::2]:6/name", [("::1", 5), ("::2", 6)]),
        ("postgresql:///name?host=/var/run/postgresql", [("/var/run/postgresql", None)]),
        ("postgresql:///name?host=/run/pg&port=5433", [("/run/pg", 5433)]),
        ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/name", [("/var/run/postgresql", None)]),
        ("postgresql:///name?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///name?host=a,b&port=1", [("a", 1), ("b", 1)]),
        ("postgresql:///name?user=me", [(None, None)]),
        ("postgresql://h?dbname=name", [("h", None)]),
        ("postgresql://h/my%20name?sslmode=verify-full&application_name=a%26b", [("h", None)]),
        ("postgresql://:6432/name", [(None, 6432)]),
    ],
)
def test_a_server_is_named_as_its_own_library_has_it(
    url: str, hosts: list[tuple[str | None, int | None]]
) -> None:
    assert parse_database_url(url) == url
    assert hosts_of(url) == tuple(Host(*one) for one in hosts)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "must be sqlite:///"),
        ("sqlite:///", "must be sqlite:///"),
        ("sqlite://gateway.db", "must be sqlite:///"),
        ("sqlite:///:memory:", "must be sqlite:///"),
        ("mysql://h/name", "must be sqlite:///"),
        ("postgresql:name", "must be sqlite:///"),
        ("postgresql://h", "one name for the database"),
        ("postgresql://h/", "one name for the database"),
        ("postgresql://h/a/b", "one name for the database"),
        ("postgresql+asyncpg://u@h/name", "must begin with postgresql:, without"),
        ("postgres+psycopg2://u@h/name", "must begin with postgres:, without"),
        ("sqlite+aiosqlite:///gateway.db", "must begin with sqlite:, without"),
        ("postgresql://h:0/name", "port from 1 to 65535"),
        ("postgresql://h:65536/name", "port from 1 to 65535"),
        ("postgresql:///name?port=s3cret", "port from 1 to 65535"),
        ("postgresql:///name?host=a,b,c&port=1,2", "one port for all hosts"),
        ("postgresql://h:s3cret/name", "must have hosts as"),
        ("postgresql://::1/name", "must have hosts as"),
        ("postgresql://[::1/name", "must be sqlite:///"),
        ("postgresql://h/name?sslmode", "name=value"),
        ("postgresql://h/na me", "%XX"),
        ("postgresql://h/name\n", "%XX"),
        # Passwords with the marks of a URL in them.
        ("postgresql://u:s3@cret@h/name", "%40"),
        ("postgresql://u:s3/cret@h/name", "%XX"),
        ("postgresql://u:12/s3cret@h", "%XX"),
        ("postgresql://u:s3#cret@h/name", "%XX"),
        ("postgresql://u:s3?cret@h/name", "name=value"),
        ("postgresql://u:s3[cret@h/name", "must be sqlite:///"),
    ],
)
def test_what_names_no_database_is_refused_without_repeating_a_secret(
    url: str, expected: str
) -> None:
    for look in (parse_database_url, shown):
        with pytest.raises(DatabaseUrlError) as refused:
            look(url)
        assert expected in str(refused.value)
        assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://u:s3cret@h:5432/name", "postgresql://u@h:5432/name"),
        ("postgres://u:s3cret%40%2F@[::1]:1,[::2]/n", "postgresql://u@[::1]:1,[::2]/n"),
        ("postgresql://h/n?password=s3cret", "postgresql://h/n"),
        ("postgresql://h/n?pass%77ord=s3cret&a=%26", "postgresql://h/n?a=%26"),
        (
            "postgresql://h/n?sslmode=require&sslpassword=s3cret&sslkey=/k",
            "postgresql://h/n?sslmode=require&sslkey=/k",
        ),
        ("postgresql:///n?host=/var/run", "postgresql:///n?host=/var/run"),
        ("postgresql://:s3cret@h/n", "postgresql://h/n"),
        ("postgresql://u@h/n", "postgresql://u@h/n"),
    ],
)
def test_what_is_shown_is_the_url_without_a_password(url: str, seen: str) -> None:
    assert shown(url) == seen
    assert has_password(url) == ("s3cret" in url and "sslpassword" not in url)


WITHOUT_LIBRARY = """
import asyncio, sys
sys.modules["asyncpg"] = None  # as if it were not installed
from gateway.db.opening import open_database_url
from gateway.db.url import DatabaseUrlError

async def main():
    try:
        async with open_database_url("postgresql://h/name"):
            pass
    except DatabaseUrlError as error:
        print(error)

asyncio.run(main())
"""


def test_without_the_library_a_server_is_refused_with_what_to_install() -> None:
    output = subprocess.check_output([sys.executable, "-c", WITHOUT_LIBRARY], text=True)
    assert output == "needs a library for PostgreSQL: pip install 'video-gateway[postgres]'\n"
