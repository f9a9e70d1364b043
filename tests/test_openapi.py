"""Does openapi.json say what the gateway does, no more and no less?"""

import asyncio
import copy
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, World, world
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from sdk_tools import run

from gateway import __version__, errors
from gateway.api.intent import MAX_IDEMPOTENCY_CHARACTERS
from gateway.api.listing import DEFAULT_LIMIT, MAX_LIMIT
from gateway.api.organization import limits, rate_limits
from gateway.api.organization.api_keys import MAX_GRACE_SECONDS
from gateway.api.organization.checks import MAX_LIFETIME_SECONDS, READ_ONLY
from gateway.api.organization.model_permissions import MAX_MODELS
from gateway.billing.balances import LEVELS, PERIODS
from gateway.billing.catalogue import UNITS
from gateway.billing.service_accounts import MEMBER, NO_ROLE, OWNER
from gateway.db import paging
from gateway.mirror.kinds import VARIANTS
from gateway.upstream.requests import OPERATIONS
from gateway.videos import order

HERE = Path(__file__).parent
GATEWAY = HERE.parent / "gateway"
DOCUMENT: dict[str, Any] = json.loads((GATEWAY / "api" / "openapi.json").read_text("utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
ANY = "4XX"

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = 300 if LONG else 24
# There are four times as many operations.
ADMIN_EXAMPLES = 60 if LONG else 3
FUZZ_SECONDS = 1_700 if LONG else 250
# The short form asks the same questions every time; the long form looks for new ones.
SEED = () if LONG else ("--seed", "1")
# All but positive_data_acceptance: whether a reference, a source or a file is right, no schema can
# say. That valid requests are bought shows in the upstream's count.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "missing_required_header,unsupported_method,allow_header_conformance,use_after_free,"
    "ensure_resource_availability,ignored_auth"
)
LEAST_BOUGHT = 25
LEAST_CHANGED = 25
ADMIN_PATHS = "^/v1/organization"

on_shared = pytest.mark.asyncio(loop_scope="module")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every path, method and operation of the document."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def resolved(thing: dict[str, Any]) -> dict[str, Any]:
    """Follow a $ref of the document."""
    while "$ref" in thing:
        found: Any = DOCUMENT
        for part in thing["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        thing = found
    return thing


def responses() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every status and response, also those that belong to no operation."""
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            yield status, resolved(response)
    yield "405", DOCUMENT["components"]["responses"]["MethodNotAllowed"]


def source(*packages: str) -> str:
    return "\n".join(
        path.read_text("utf-8")
        for package in packages
        for path in sorted((GATEWAY / package).glob("*.py"))
    )


def error_classes() -> list[type[errors.GatewayError]]:
    return [
        found
        for found in vars(errors).values()
        if isinstance(found, type)
        and issubclass(found, errors.GatewayError)
        and found not in {errors.GatewayError, errors.UpstreamRefused}
        and not found.__name__.startswith("_")
    ]


def test_it_is_valid_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_it_has_the_version_of_the_gateway() -> None:
    assert DOCUMENT["info"]["version"] == __version__


@on_shared
@pytest.mark.parametrize("path", ["/openapi.json", "/v1/openapi.json"])
async def test_it_is_served_to_everyone(shared: World, path: str) -> None:
    async with shared.client("no key") as client:
        answer = await client.get(f"{shared.base_url.removesuffix('/v1')}{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_every_path_of_the_api_is_in_it_and_the_reverse() -> None:
    tables = [GATEWAY / "api" / name for name in ("routes.py", "organization/routes.py")]
    routed = [
        path for table in tables for path in re.findall(r'"(/[^"]*)"', table.read_text("utf-8"))
    ]
    assert sorted(routed) == sorted(DOCUMENT["paths"])


@on_shared
@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_every_path_takes_the_methods_in_it_and_no_others(shared: World, path: str) -> None:
    url = shared.base_url.removesuffix("/v1") + re.sub(r"\{[a-z_]+\}", "some", path)
    async with shared.client("no key") as client:
        answer = await client.patch(url)
    assert answer.status_code == 405
    taken = {method.lower() for method in answer.headers["allow"].split(", ")}
    described = {method for one, method, _ in operations() if one == path}
    assert described <= taken
    assert taken - described <= {"head"}
    assert set(answer.headers) >= set(
        resolved({"$ref": "#/components/responses/MethodNotAllowed"})["headers"]
    )


def test_every_error_code_of_ours_is_in_it_and_the_reverse() -> None:
    written = re.findall(
        r'\bcode="([a-z_]+)"', source("api", "api/organization", "videos", "upstream")
    )
    codes = {*written, *(one.code for one in error_classes())} - {None}
    (ours, _) = SCHEMAS["ErrorCode"]["anyOf"]
    assert set(ours["enum"]) == codes


def test_every_status_of_an_error_is_in_it() -> None:
    described = {status for status, _ in responses()}
    assert {str(one.status) for one in error_classes()} <= described
    assert "504" in described


def test_every_error_is_described_as_one() -> None:
    for status, response in responses():
        if status[0] in "45" and "content" in response:
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}


def test_every_response_has_a_request_id() -> None:
    for status, response in responses():
        assert "x-request-id" in response["headers"], status


def test_every_header_in_it_is_in_the_code_and_the_reverse() -> None:
    code = source("api", "upstream").lower()
    parameters = [
        resolved(one)
        for path, _, operation in operations()
        for one in (
            *operation.get("parameters", ()),
            *DOCUMENT["paths"][path].get("parameters", ()),
        )
    ]
    described = {name for _, response in responses() for name in response["headers"]}
    described |= {one["name"].lower() for one in parameters if one["in"] == "header"}
    assert {name for name in described if f'"{name}"' not in code} == {"allow"}
    written = set(re.findall(r'"((?:x|openai)-[a-z-]*[a-z])"', source("api")))
    assert {name for name in written if name not in json.dumps(DOCUMENT).lower()} == set()


def test_its_bounds_are_those_of_the_code() -> None:
    limit, *_ = resolved(DOCUMENT["paths"]["/v1/videos"]["get"])["parameters"]
    assert (limit["schema"]["default"], limit["schema"]["maximum"]) == (DEFAULT_LIMIT, MAX_LIMIT)
    content = DOCUMENT["paths"]["/v1/videos/{video_id}/content"]["parameters"]
    assert content[1]["schema"]["enum"] == list(VARIANTS)
    key = DOCUMENT["components"]["parameters"]["IdempotencyKey"]["schema"]
    assert key["maxLength"] == MAX_IDEMPOTENCY_CHARACTERS
    named = [order.CREATE, order.REMIX, order.EDIT, order.EXTENSION, order.CHARACTER]
    dry_run = SCHEMAS["DryRun"]["properties"]
    assert dry_run["operation"]["enum"] == named
    assert dry_run["budgets"]["items"]["properties"]["period"]["enum"] == list(PERIODS)
    assert SCHEMAS["Level"]["enum"] == list(LEVELS)
    sizes = SCHEMAS["VideoModel"]["properties"]["sizes"]["items"]["properties"]
    assert sizes["per"]["enum"] == list(UNITS)


def test_its_bounds_of_the_admin_api_are_those_of_the_code() -> None:
    limit = DOCUMENT["components"]["parameters"]["PageLimit"]["schema"]
    assert (limit["default"], limit["maximum"]) == (paging.DEFAULT_LIMIT, paging.MAX_LIMIT)
    limit, *_ = DOCUMENT["paths"]["/v1/organization/projects/{project_id}/rate_limits"]["get"][
        "parameters"
    ]
    assert limit["schema"]["default"] == rate_limits.DEFAULT_LIMIT

    def field(schema: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = SCHEMAS[schema]["properties"][name]
        return found

    for schema in ("CreateServiceAccount", "CreateServiceAccountKey", "UpdateApiKey"):
        assert field(schema, "expires_in_seconds")["maximum"] == MAX_LIFETIME_SECONDS
    assert field("CreateAdminKey", "expires_in_seconds")["maximum"] == MAX_LIFETIME_SECONDS
    assert field("RotateApiKey", "grace_seconds")["maximum"] == MAX_GRACE_SECONDS
    assert field("UpdateModelPermissions", "model_ids")["maxItems"] == MAX_MODELS
    assert field("UpdateRateLimit", "max_requests_per_1_minute")["maximum"] == rate_limits.NO_LIMIT
    assert field("RateLimit", "max_tokens_per_1_minute")["const"] == rate_limits.NO_LIMIT
    assert field("UpdateLimits", "max_videos_in_flight")["maximum"] == limits.MOST
    assert field("ServiceAccount", "role")["enum"] == [OWNER, MEMBER, NO_ROLE]
    assert field("UpdateApiKey", "scopes")["items"]["enum"] == [READ_ONLY]


def test_its_examples_are_valid_by_its_own_schemas() -> None:
    bodies = [operation.get("requestBody", {}) for _, _, operation in operations()]
    checked = 0
    for one in (*bodies, *(response for _, response in responses())):
        for media in one.get("content", {}).values():
            examples = [shown["value"] for shown in media.get("examples", {}).values()]
            for example in (*examples, *([media["example"]] if "example" in media else ())):
                checker = OAS31Validator({**media["schema"], "components": DOCUMENT["components"]})
                assert [error.message for error in checker.iter_errors(example)] == []
                checked += 1
    assert checked > 10


@pytest.mark.timeout(FUZZ_SECONDS + 50)
async def test_no_request_that_it_allows_or_forbids_is_answered_otherwise(tmp_path: Path) -> None:
    async with world(
        tmp_path / "gateway", upstream_offers=OPERATIONS, content_wait_seconds=0
    ) as made:
        key = await made.key(budget="1000000")
        await made.mirrored(await made.buy(key))
        await fuzz(
            made, key.value, "--exclude-path-regex", ADMIN_PATHS, examples=EXAMPLES, folder=tmp_path
        )
        assert await made.executions() > LEAST_BOUGHT
        assert await made.adds_up()


@pytest.mark.timeout(FUZZ_SECONDS + 50)
async def test_no_admin_request_that_it_allows_or_forbids_is_answered_otherwise(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "gateway") as made:
        await made.mirrored(await made.buy(await made.key(budget="1000000")))
        await fuzz(
            made,
            ADMIN_KEY,
            "--include-path-regex",
            ADMIN_PATHS,
            examples=ADMIN_EXAMPLES,
            folder=tmp_path,
        )
        assert await made.one("SELECT COUNT(*) FROM audit_log") > LEAST_CHANGED
        assert await made.adds_up()


async def fuzz(made: World, key: str, *chosen: str, examples: int, folder: Path) -> None:
    """Ask for what the document describes with a key; `chosen` says for which of it."""
    path = folder / "narrowed.json"
    text = json.dumps(narrowed(DOCUMENT))
    await asyncio.to_thread(path.write_text, text, "utf-8")
    await run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(path)),
            *("--url", made.base_url.removesuffix("/v1"), "--no-color", *chosen),
            *("--header", f"Authorization: Bearer {key}", "--checks", CHECKS),
            *("--max-examples", str(examples), *SEED),
            *("--generation-database", "none"),
        ],
        environment={
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
        },
        seconds=FUZZ_SECONDS,
        folder=folder,
    )


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the values of the packaged catalogue, so that requests are bought.

    The other changes: no long prompts, which take long to make up; no patterns of what is blank,
    because Schemathesis takes texts for blank that are not; and no 4XX, since an upstream that
    refuses nothing by itself leaves nothing to pass on.
    """
    narrow = copy.deepcopy(document)
    schemas = narrow["components"]["schemas"]
    schemas["ModelName"]["enum"] = ["sora-2", "sora-2-pro", "grok-imagine-video"]
    schemas["Seconds"]["enum"] = ["4", "8"]
    schemas["Size"]["enum"] = ["720x1280", "1280x720"]
    del schemas["Prompt"]["maxLength"], schemas["Prompt"]["pattern"]
    del schemas["CreateCharacterForm"]["properties"]["name"]["pattern"]
    for item in narrow["paths"].values():
        for method in METHODS:
            item.get(method, {}).get("responses", {}).pop(ANY, None)
    return narrow
