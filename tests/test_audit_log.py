"""Does every change leave its line in the audit log, in the same transaction, once and for ever?"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import (
    LEASE_SECONDS,
    NO_IDS,
    NOW,
    a_level,
    a_submit,
    everything,
    followed,
    opened,
    rows,
)

import gateway
from gateway import billing, mirror, videos
from gateway.api.organization import api_keys as of_keys
from gateway.api.organization import service_accounts as of_accounts
from gateway.billing import (
    admin_keys,
    alerts,
    budgets,
    keys,
    levels,
    limits,
    permissions,
    projects,
    service_accounts,
)
from gateway.billing.audit_log import ADMIN_KEY, Asked, Change, already_made, list_lines, write_line
from gateway.billing.balances import Refusal
from gateway.billing.key_values import ADMIN, VIRTUAL, new_value
from gateway.billing.limits import Limits
from gateway.billing.permissions import EVERYTHING, Permissions
from gateway.cli import alerts as of_alerts
from gateway.cli import orphans as of_orphans
from gateway.db.database import Database
from gateway.db.paging import Cursor
from gateway.db.script import Script
from gateway.mirror import keeping, pins
from gateway.mirror.keeping import Retention
from gateway.videos import adoption_records, orphans
from gateway.videos.adoption_records import Stray
from gateway.videos.objects import Facts
from gateway.videos.opening import open_submit
from gateway.videos.orphans import RELEASE_MARGIN_SECONDS, NoOrphan
from gateway.videos.records import record_orphan

LATER = NOW + LEASE_SECONDS + RELEASE_MARGIN_SECONDS
CHANGE = Change("line", LATER, ADMIN_KEY, "key_of_admin", request_id="req_1")
BEFORE = Change("before", NOW, ADMIN_KEY, "key_of_admin")
KEY = a_level("key", "key_a")
MAIL = {"type": "email"}
UPDATE_OR_DELETE = re.compile(
    r"\b(?:UPDATE|DELETE\s+FROM|INTO\s+OR\s+REPLACE|TRUNCATE|DROP\s+TABLE)\s+"
    r"(?:audit_log|entries)\b",
    re.IGNORECASE,
)


def nothing() -> Script[None]:
    yield from ()


def an_orphan() -> Script[None]:
    yield from open_submit(a_submit(1), now=NOW)
    yield from record_orphan("vid_1", reason="broken", request_ids=NO_IDS, now=NOW)


def a_pinned_video() -> Script[None]:
    yield from followed()
    yield from pins.pin_video(BEFORE, "vid_1")


@dataclass(frozen=True)
class Case:
    """A changing script, and what its line says.

    Attributes:
        call: the script, without its Change.
        prepare: run before it, with other changes.
        lines: (type, resource, resource id, project) of every line that it leaves, by its id.
    """

    call: Callable[[Change], Script[Any]]
    type: str
    resource: str
    resource_id: str
    project_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    prepare: Callable[[], Script[Any]] = nothing
    lines: int = 1


def alert_args() -> dict[str, Any]:
    return {"alert_id": "alert", "period": "day", "threshold_micros": 7, "channel": MAIL}


ALERT_FACTS = {
    "level": "key",
    "level_id": "key_a",
    "period": "day",
    "threshold_micros": 7,
    "channel": MAIL,
}
ACCOUNT = {"project_id": "proj_a", "account_id": "account of key_a"}
NO_LIMITS = dict.fromkeys(
    (
        "requests_per_minute",
        "requests_per_day",
        "videos_in_flight",
        "price_micros",
        "reads_per_minute",
    )
)
STRAY = Stray(
    id="vid_stray",
    project_id="proj_a",
    upstream="default",
    shown="{}",
    facts=Facts("up_stray", created_at=NOW, completed_at=NOW, fields={}),
    made_at=NOW,
    expires_at=LATER,
    assets={"video": "asset_stray"},
)
MADE = {"name": "admin", "expires_at": None}
BUDGET = "tenant.billing.overage_limit.updated"
ORPHAN = "tenant.billing.info.updated"
ALERT = "tenant.billing.alerts.updated"


def orphan_case(call: Callable[[Change], Script[Any]], after: dict[str, Any]) -> Case:
    return Case(
        call, ORPHAN, "orphan", "vid_1", "proj_a", {"hold_id": "hold_1"}, after, prepare=an_orphan
    )


def admin_key(change: Change) -> Script[Any]:
    return admin_keys.create_admin_key(
        change, key_id="admin", name="admin", value=new_value(ADMIN), expires_at=None
    )


CASES = {
    "admin_keys.create_admin_key": Case(
        admin_key, "tenant.admin_api_key.created", "admin_api_key", "admin", None, None, MADE
    ),
    "admin_keys.revoke_admin_key": Case(
        partial(admin_keys.revoke_admin_key, key_id="admin"),
        "tenant.admin_api_key.deleted",
        "admin_api_key",
        "admin",
        None,
        {"name": "admin"},
        None,
        prepare=partial(admin_key, BEFORE),
    ),
    "admin_keys.set_admin_key_of_settings": Case(
        partial(admin_keys.set_admin_key_of_settings, value=new_value(ADMIN), key_id="set"),
        "tenant.admin_api_key.created",
        "admin_api_key",
        "set",
        None,
        None,
        {"name": admin_keys.SETTING_NAME, "expires_at": None},
    ),
    "alerts.create_alert": Case(
        lambda change: alerts.create_alert(change, KEY, **alert_args()),
        ALERT,
        "spend_alert",
        "alert",
        "proj_a",
        None,
        ALERT_FACTS,
    ),
    "alerts.update_alert": Case(
        lambda change: alerts.update_alert(
            change, KEY, **(alert_args() | {"threshold_micros": 8, "period": "month"})
        ),
        ALERT,
        "spend_alert",
        "alert",
        "proj_a",
        ALERT_FACTS,
        ALERT_FACTS | {"threshold_micros": 8, "period": "month"},
        prepare=lambda: alerts.create_alert(BEFORE, KEY, **alert_args()),
    ),
    "alerts.delete_alert": Case(
        lambda change: alerts.delete_alert(change, KEY, alert_id="alert"),
        ALERT,
        "spend_alert",
        "alert",
        "proj_a",
        ALERT_FACTS,
        None,
        prepare=lambda: alerts.create_alert(BEFORE, KEY, **alert_args()),
    ),
    "budgets.set_budget": Case(
        lambda change: budgets.set_budget(change, KEY, period="day", limit_micros=5),
        BUDGET,
        "budget",
        "key:key_a:day",
        "proj_a",
        {"limit_micros": 3},
        {"limit_micros": 5},
        prepare=lambda: budgets.set_budget(BEFORE, KEY, period="day", limit_micros=3),
    ),
    "budgets.remove_budget": Case(
        lambda change: budgets.remove_budget(change, KEY, period="day"),
        BUDGET,
        "budget",
        "key:key_a:day",
        "proj_a",
        {"limit_micros": 3},
        None,
        prepare=lambda: budgets.set_budget(BEFORE, KEY, period="day", limit_micros=3),
    ),
    "keys.create_key": Case(
        lambda change: keys.create_key(
            change, **ACCOUNT, key_id="key_new", name="new", value="x", scope="read", expires_at=9
        ),
        "api_key.created",
        "api_key",
        "key_new",
        "proj_a",
        None,
        {"name": "new", "scope": "read", "expires_at": 9},
    ),
    "keys.rotate_key": Case(
        lambda change: keys.rotate_key(change, key_id="key_a", value="abcdefgh", grace_seconds=60),
        "api_key.updated",
        "api_key",
        "key_a",
        "proj_a",
        {},
        {"value": f"{VIRTUAL}_…efgh", "grace_seconds": 60},
    ),
    "keys.update_key": Case(
        lambda change: keys.update_key(
            change, project_id="proj_a", key_id="key_a", scope="read", expires_at=None
        ),
        "api_key.updated",
        "api_key",
        "key_a",
        "proj_a",
        {"scope": "all", "expires_at": None},
        {"scope": "read", "expires_at": None},
    ),
    "keys.revoke_key": Case(
        lambda change: keys.revoke_key(change, key_id="key_a"),
        "api_key.deleted",
        "api_key",
        "key_a",
        "proj_a",
        {"name": "name of key_a"},
        None,
    ),
    "levels.make_key": Case(
        lambda change: levels.make_key(
            change,
            project="films",
            name="ci",
            value="x",
            key_id="key_new",
            account_id="svc_acct_new",
            project_id="proj_new",
        ),
        "project.created",
        "project",
        "proj_new",
        "proj_new",
        None,
        {"name": "films"},
        lines=3,  # the project, the service account, the key
    ),
    "limits.set_limits": Case(
        lambda change: limits.set_limits(change, KEY, Limits(requests_per_day=5), model="sora-2"),
        "rate_limit.updated",
        "limits",
        "key_a:sora-2",
        "proj_a",
        NO_LIMITS,
        NO_LIMITS | {"requests_per_day": 5},
    ),
    "permissions.set_permissions": Case(
        lambda change: permissions.set_permissions(
            change, a_level("project", "proj_a"), Permissions("allow_list", ("sora-2",))
        ),
        "project.updated",
        "model_permissions",
        "proj_a",
        "proj_a",
        {"mode": EVERYTHING.mode, "model_ids": []},
        {"mode": "allow_list", "model_ids": ["sora-2"]},
    ),
    "projects.create_project": Case(
        lambda change: projects.create_project(change, project_id="proj_new", name="films"),
        "project.created",
        "project",
        "proj_new",
        "proj_new",
        None,
        {"name": "films"},
    ),
    "projects.ensure_project": Case(
        lambda change: projects.ensure_project(change, project_id="proj_new", named="films"),
        "project.created",
        "project",
        "proj_new",
        "proj_new",
        None,
        {"name": "films"},
    ),
    "projects.rename_project": Case(
        lambda change: projects.rename_project(change, project_id="proj_a", name="films"),
        "project.updated",
        "project",
        "proj_a",
        "proj_a",
        {"name": "name of proj_a"},
        {"name": "films"},
    ),
    "projects.archive_project": Case(
        lambda change: projects.archive_project(change, project_id="proj_a"),
        "project.archived",
        "project",
        "proj_a",
        "proj_a",
        {"status": "active"},
        {"status": "archived"},
    ),
    "service_accounts.create_service_account": Case(
        lambda change: service_accounts.create_service_account(
            change, project_id="proj_a", account_id="svc_acct_new", name="bot", role="owner"
        ),
        "service_account.created",
        "service_account",
        "svc_acct_new",
        "proj_a",
        None,
        {"name": "bot", "role": "owner"},
    ),
    "service_accounts.update_service_account": Case(
        lambda change: service_accounts.update_service_account(
            change, **ACCOUNT, name=None, role="none"
        ),
        "service_account.updated",
        "service_account",
        "account of key_a",
        "proj_a",
        {"name": "name of key_a", "role": "member"},
        {"name": "name of key_a", "role": "none"},
    ),
    "service_accounts.delete_service_account": Case(
        lambda change: service_accounts.delete_service_account(change, **ACCOUNT),
        "service_account.deleted",
        "service_account",
        "account of key_a",
        "proj_a",
        {"name": "name of key_a"},
        None,
        lines=2,  # the service account, its key
    ),
    "keeping.set_retention": Case(
        lambda change: keeping.set_retention(
            change, project_id="proj_a", retention=Retention(keep_bytes=5)
        ),
        "project.updated",
        "retention",
        "proj_a",
        "proj_a",
        {"keep_seconds": 60, "keep_bytes": None},
        {"keep_seconds": None, "keep_bytes": 5},
        prepare=lambda: keeping.set_retention(
            BEFORE, project_id="proj_a", retention=Retention(keep_seconds=60)
        ),
    ),
    "pins.pin_video": Case(
        lambda change: pins.pin_video(change, "vid_1"),
        "project.updated",
        "video",
        "vid_1",
        "proj_a",
        {"pinned_at": None},
        {"pinned_at": LATER},
        prepare=followed,
    ),
    "pins.unpin_video": Case(
        lambda change: pins.unpin_video(change, "vid_1"),
        "project.updated",
        "video",
        "vid_1",
        "proj_a",
        {"pinned_at": NOW},
        {"pinned_at": None},
        prepare=a_pinned_video,
    ),
    "adoption_records.adopt_video": Case(
        lambda change: adoption_records.adopt_video(change, STRAY),
        "project.updated",
        "video",
        "vid_stray",
        "proj_a",
        None,
        {"adopted_from": "default", "upstream_id": "up_stray"},
    ),
    "orphans.settle_orphan": orphan_case(
        lambda change: orphans.settle_orphan(change, "vid_1", list_micros=5),
        {"settled_list_micros": 5},
    ),
    "orphans.release_orphan": orphan_case(
        lambda change: orphans.release_orphan(change, "vid_1"), {"released": True}
    ),
    "orphans.attach_orphan": orphan_case(
        lambda change: orphans.attach_orphan(change, "vid_1", upstream_id="up_1"),
        {"upstream_id": "up_1"},
    ),
}


ENDING = {
    *("admin_keys.revoke_admin_key", "alerts.delete_alert", "budgets.remove_budget"),
    "service_accounts.delete_service_account",
    *(
        "pins.unpin_video",
        "orphans.settle_orphan",
        "orphans.release_orphan",
        "orphans.attach_orphan",
    ),
}


def plain(answer: Any) -> Any:
    """What a script answers, with its rows as dictionaries."""
    return dict(answer) if hasattr(answer, "keys") else answer


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def lines(database: Database) -> list[dict[str, Any]]:
    return await database.read(partial(rows, "SELECT * FROM audit_log ORDER BY id"))


def changing() -> set[str]:
    """Every public script that is told of a Change."""
    found = set()
    for package in (billing, mirror, videos):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= {
                f"{info.name}.{name}"
                for name, one in inspect.getmembers(module, inspect.isfunction)
                if one.__module__ == module.__name__
                and not name.startswith("_")
                and one is not write_line
                and one is not already_made
                and any(
                    it.annotation is Change for it in inspect.signature(one).parameters.values()
                )
            }
    return found


def test_every_changing_script_is_called_here() -> None:
    assert changing() == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
async def test_a_change_leaves_its_line_with_what_stood_before_and_after(
    database: Database, name: str
) -> None:
    case = CASES[name]
    await database.run(case.prepare)
    there = {line["id"] for line in await lines(database)}
    await database.run(partial(case.call, CHANGE))
    written = [line for line in await lines(database) if line["id"] not in there]
    assert len(written) == case.lines
    assert all(line["id"].partition(".")[0] == CHANGE.id for line in written)
    (line,) = [line for line in written if line["id"] == CHANGE.id]
    assert line | {"facts_before": None, "facts_after": None} == {
        "id": CHANGE.id,
        "effective_at": LATER,
        "type": case.type,
        "actor_kind": ADMIN_KEY,
        "actor_id": "key_of_admin",
        "request_id": "req_1",
        "project_id": case.project_id,
        "resource": case.resource,
        "resource_id": case.resource_id,
        "facts_before": None,
        "facts_after": None,
    }
    before, after = (
        None if line[column] is None else json.loads(line[column])
        for column in ("facts_before", "facts_after")
    )
    assert after == case.after
    assert (before is None) == (case.before is None)
    assert before is None or before | (case.before or {}) == before


@pytest.mark.parametrize("name", sorted(CASES))
async def test_the_same_change_run_twice_answers_the_same_and_changes_once(
    database: Database, name: str
) -> None:
    case = CASES[name]
    await database.run(case.prepare)
    answer = await database.run(partial(case.call, CHANGE))
    once = await database.read(everything)
    assert plain(await database.run(partial(case.call, CHANGE))) == plain(answer)
    assert await database.read(everything) == once


# What the API and the commands look up first has ended, too, when they are run again.
WHOLE: dict[str, tuple[Callable[[Change], Script[Any]], Callable[[], Script[Any]]]] = {
    "api, key": (
        partial(of_keys._delete, named={"project_id": "proj_a", "key_id": "key_a"}),
        nothing,
    ),
    "api, service account": (partial(of_accounts._delete, named=ACCOUNT), nothing),
    "command, alert": (
        partial(of_alerts._delete, alert_id="alert"),
        CASES["alerts.delete_alert"].prepare,
    ),
    "command, settle": (partial(of_orphans._settle, named="vid_1", list_micros=5), an_orphan),
    "command, release": (partial(of_orphans._release, named="vid_1"), an_orphan),
    "command, follow": (
        partial(of_orphans._attach, named="vid_1", upstream_id="up_1", list_micros=None),
        an_orphan,
    ),
    "command, follow and charge": (
        partial(of_orphans._attach, named="vid_1", upstream_id="up_1", list_micros=5),
        an_orphan,
    ),
}


@pytest.mark.parametrize("name", sorted(WHOLE))
async def test_what_looks_up_what_it_ends_answers_the_same_when_it_is_run_again(
    database: Database, name: str
) -> None:
    call, prepare = WHOLE[name]
    await database.run(prepare)
    answer = await database.run(partial(call, CHANGE))
    once = await database.read(everything)
    assert await database.run(partial(call, CHANGE)) == answer
    assert await database.read(everything) == once


@pytest.mark.parametrize("name", sorted(ENDING))
async def test_what_has_ended_is_ended_by_no_other_change(database: Database, name: str) -> None:
    case = CASES[name]
    await database.run(case.prepare)
    await database.run(partial(case.call, CHANGE))
    once = await database.read(everything)
    other = partial(case.call, replace(CHANGE, id="other"))
    if name.startswith("orphans."):
        with pytest.raises(NoOrphan):
            await database.run(other)
    else:
        assert not await database.run(other)
    assert await database.read(everything) == once


@pytest.mark.costly
@pytest.mark.parametrize("name", sorted(CASES))
async def test_no_line_tells_a_value_of_a_key(database: Database, name: str) -> None:
    case = CASES[name]
    await database.run(case.prepare)
    await database.run(partial(case.call, CHANGE))
    text = json.dumps(await lines(database))
    assert not re.search(r"vg[ka]_[0-9A-Za-z]{36}|[0-9a-f]{64}", text)


async def test_a_change_that_is_undone_leaves_no_line(database: Database) -> None:
    def undone() -> Script[None]:
        yield from budgets.set_budget(CHANGE, KEY, period="day", limit_micros=5)
        raise Refusal(())

    before = await database.read(everything)
    with pytest.raises(Refusal):
        await database.run(undone)
    assert await database.read(everything) == before


def test_nothing_updates_or_deletes_a_line_of_the_audit_log_or_an_entry() -> None:
    folder = Path(gateway.__file__).parent
    files = [*folder.rglob("*.py"), *folder.rglob("*.sql")]
    assert len(files) > 100
    for file in files:
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))
        assert not UPDATE_OR_DELETE.search(text), file


async def test_lines_are_found_by_type_actor_project_resource_and_time(
    database: Database,
) -> None:
    for number, (level, now) in enumerate([("key_a", NOW), ("key_c", NOW + 5)]):
        change = Change(f"line {number}", now, ADMIN_KEY, f"admin {number}")
        await database.run(
            partial(budgets.set_budget, change, a_level("key", level), period="day", limit_micros=5)
        )
    for asked, expected in [
        (Asked(types=(BUDGET,)), ["line 1", "line 0"]),
        (Asked(types=("nothing",)), []),
        (Asked(actor_ids=("admin 1", "nobody")), ["line 1"]),
        (Asked(types=(BUDGET,), project_ids=("proj_a",)), ["line 0"]),
        (Asked(resource_ids=("key:key_c:day",)), ["line 1"]),
        (Asked(types=(BUDGET,), since=NOW + 5), ["line 1"]),
        (Asked(types=(BUDGET,), until=NOW + 5), ["line 0"]),
        (Asked(types=(BUDGET,), since=NOW, until=NOW), []),
    ]:
        page = await database.read(partial(list_lines, asked, Cursor()))
        assert [row["id"] for row in page.rows] == expected
    newest = await database.read(partial(list_lines, Asked(types=(BUDGET,)), Cursor(limit=1)))
    assert [row["project_name"] for row in newest.rows] == ["name of proj_b"]
