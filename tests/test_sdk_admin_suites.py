"""Does the Python SDK's own suite for the Admin API, unchanged, pass?

Its tests use words for ids: rows with these ids stand in the database before each of them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, world
from sdk_tools import python_sdk_suite

# The first test of a machine installs its client.
pytestmark = pytest.mark.timeout(600)

CLIENTS = 5
SUITE_SECONDS = 400
CREATED_AT = 1_700_000_000

NO_SUCH_PLACE = "it names an external key and a geography, and this gateway has neither"
NO_SUCH_KEY = "OpenAI's API forbids it: an account without a key, and when that key expires"
NO_SUCH_SCOPE = 'its key has the scope "string", which says nothing about what the key may do'


@dataclass(frozen=True)
class Suite:
    """One file of the suite.

    Attributes:
        passed: how many of its tests pass.
        refused: its tests that must be refused with a 400, each with the reason.
        only: a word in the names of those of its tests that are run.
        rows: tables and rows that stand in the database for these tests alone.
    """

    passed: int
    refused: Mapping[str, str] = field(default_factory=dict)
    only: str = ""
    rows: tuple[tuple[str, dict[str, Any]], ...] = ()


def budget(level: str, level_id: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """A monthly budget, and the balance of the running month on which it stands."""
    month = datetime.now(UTC).date().replace(day=1).isoformat()
    about = {"level": level, "level_id": level_id, "period": "month", "limit_micros": 5_000_000}
    return (
        ("budgets", {**about, "updated_at": CREATED_AT}),
        (
            "balances",
            {
                **about,
                "id": f"{level}:{level_id}:month:{month}",
                "period_start": month,
                "spent_micros": 0,
                "held_micros": 0,
            },
        ),
    )


def alert(level: str, level_id: str) -> tuple[str, dict[str, Any]]:
    return "alerts", {
        "id": "alert_id",
        "level": level,
        "level_id": level_id,
        "period": "month",
        "threshold_micros": 5_000_000,
        "channel": '{"type": "email", "recipients": ["ops@example.com"]}',
        "created_at": CREATED_AT,
        "deleted_at": None,
    }


SUITES = {
    "admin/organization/test_projects.py": Suite(
        95,
        {
            "test_method_create_with_all_params": NO_SUCH_PLACE,
            "test_method_update_with_all_params": NO_SUCH_PLACE,
        },
    ),
    "admin/organization/test_admin_api_keys.py": Suite(80),
    "admin/organization/projects/test_service_accounts.py": Suite(
        110, {"test_method_create_with_all_params": NO_SUCH_KEY}
    ),
    "admin/organization/projects/service_accounts/test_api_keys.py": Suite(
        20, {"test_method_create_with_all_params": NO_SUCH_SCOPE}
    ),
    "admin/organization/projects/test_api_keys.py": Suite(90),
    "admin/organization/projects/test_model_permissions.py": Suite(60),
    "admin/organization/projects/test_rate_limits.py": Suite(50),
    "admin/organization/test_spend_limit.py": Suite(
        45, rows=budget("organization", "organization")
    ),
    "admin/organization/projects/test_spend_limit.py": Suite(
        60, rows=budget("project", "project_id")
    ),
    "admin/organization/test_spend_alerts.py": Suite(
        105, rows=(alert("organization", "organization"),)
    ),
    "admin/organization/projects/test_spend_alerts.py": Suite(
        115, rows=(alert("project", "project_id"),)
    ),
    "admin/organization/test_audit_logs.py": Suite(20),
    "admin/organization/test_usage.py": Suite(20, only="costs"),
}
# A rate limit is called after its model; two names are used for the one project.
RENAMED = {"rate_limit_id": "rl-sora-2", "proj_123": "project_id"}
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "projects",
        {"id": "project_id", "name": "suite", "created_at": CREATED_AT, "archived_at": None},
    ),
    (
        "service_accounts",
        {
            "id": "service_account_id",
            "project_id": "project_id",
            "name": "suite",
            "role": "member",
            "created_at": CREATED_AT,
            "deleted_at": None,
        },
    ),
    (
        "keys",
        {
            "id": "api_key_id",
            "project_id": "project_id",
            "service_account_id": "service_account_id",
            "name": "suite",
            "scope": "all",
            "created_at": CREATED_AT,
            "expires_at": None,
            "revoked_at": None,
            "last_used_at": None,
        },
    ),
    (
        "key_values",
        {
            "value_sha256": "0" * 64,
            "key_id": "api_key_id",
            "value_hint": "abcd",
            "created_at": CREATED_AT,
            "ends_at": None,
        },
    ),
    (
        "admin_keys",
        {
            "id": "key_id",
            "name": "suite",
            "value_sha256": "1" * 64,
            "value_hint": "abcd",
            "from_settings": 0,
            "created_at": CREATED_AT,
            "expires_at": None,
            "revoked_at": None,
            "last_used_at": None,
        },
    ),
)


@pytest.mark.sqlite("its plugin replaces rows under what points to them")
async def test_the_python_sdks_own_admin_suite_passes_but_for_what_there_is_not_here(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "gateway") as made:
        outcomes = await python_sdk_suite(
            list(SUITES),
            base_url=made.base_url,
            told={
                "admin_api_key": ADMIN_KEY,
                "refused": {file: suite.refused for file, suite in SUITES.items()},
                "renamed": RENAMED,
                "database": str(made.settings.database_path),
                "rows": ROWS,
                "rows_of": {file: suite.rows for file, suite in SUITES.items()},
                "only": {file: suite.only for file, suite in SUITES.items()},
            },
            report=tmp_path / "report.json",
            seconds=SUITE_SECONDS,
        )
        assert await made.adds_up()
    counts = {outcome: Counter(map(file_of, ids)) for outcome, ids in outcomes.items()}
    assert counts["passed"] == {file: suite.passed for file, suite in SUITES.items()}
    refused = {file: CLIENTS * len(suite.refused) for file, suite in SUITES.items()}
    assert counts["xfailed"] == Counter(refused)
    for outcome in ("failed", "error", "skipped", "xpassed"):
        assert outcomes[outcome] == []


def file_of(test_id: str) -> str:
    return test_id.partition("::")[0]
