"""How do the tests of the admin API ask? With the official SDK, which checks answers strictly."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from conftest import ADMIN_KEY, World
from openai import AsyncOpenAI
from openai.resources.admin.organization.organization import AsyncOrganization
from plain_http import NO_TLS

from gateway.billing.money import parse_usd

DAY_SECONDS = 86_400
EMAIL: Any = {"type": "email", "recipients": ["ops@example.com"]}


@asynccontextmanager
async def organization(made: World) -> AsyncIterator[AsyncOrganization]:
    """The organization, through the SDK."""
    async with AsyncOpenAI(
        base_url=made.base_url,
        api_key="not used",
        admin_api_key=ADMIN_KEY,
        max_retries=0,
        _strict_response_validation=True,
    ) as sdk:
        yield sdk.admin.organization


def plain(made: World) -> httpx.AsyncClient:
    """What the SDK has no words for, under /v1/organization."""
    return httpx.AsyncClient(
        verify=NO_TLS,
        base_url=f"{made.base_url}/organization",
        headers={"authorization": f"Bearer {ADMIN_KEY}"},
        trust_env=False,
        timeout=60,
    )


def refusal(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    """Return status, param and code of an error in OpenAI's envelope."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["param"], error["code"]


async def every(made: World, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return all that a list has, page by page."""
    found: list[dict[str, Any]] = []
    async with plain(made) as client:
        while True:
            last = {"after": found[-1]["id"]} if found else {}
            answer = await client.get(path, params={**query, **last})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert page["object"] == "list"
            found += page["data"]
            if not page["has_more"]:
                return found


def day_of(moment: int) -> int:
    """Return when the UTC day of a moment began."""
    return moment - moment % DAY_SECONDS


def micros(row: Mapping[str, Any], name: str) -> int:
    """Return an amount of a row, which is a text of dollars."""
    amount = str(row[name])
    return -parse_usd(amount[1:]) if amount.startswith("-") else parse_usd(amount)
