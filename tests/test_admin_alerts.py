"""Can spend alerts be made, changed and ended as at OpenAI, and does one that rings show?"""

import base64
from pathlib import Path
from typing import Any

import openai
import pytest
from admin_tools import EMAIL, every, organization, plain, refusal
from conftest import World, world

SECRET = f"whsec_{base64.b64encode(b'x' * 32).decode()}"
WHOLE: dict[str, Any] = {
    "threshold_amount": 40,
    "currency": "USD",
    "interval": "month",
    "notification_channel": EMAIL,
}


async def project_of(made: World) -> str:
    return str(await made.one("SELECT id FROM projects"))


@pytest.mark.parametrize("level", ["organization", "project"])
async def test_the_sdk_makes_reads_lists_changes_and_ends_alerts(studio: World, level: str) -> None:
    await studio.key()
    project = await project_of(studio)
    async with organization(studio) as sdk:
        there: Any = sdk.spend_alerts if level == "organization" else sdk.projects.spend_alerts
        whose = () if level == "organization" else (project,)
        inside = {} if level == "organization" else {"project_id": project}
        made = [
            await there.create(
                *whose,
                threshold_amount=number,
                currency="USD",
                interval="month",
                notification_channel=EMAIL | {"subject_prefix": f"[{number}]"},
            )
            for number in range(1, 6)
        ]
        first = made[0]
        assert (first.object, first.threshold_amount) == (f"{level}.spend_alert", 1)
        assert first.notification_channel.recipients == ["ops@example.com"]
        assert first.notification_channel.subject_prefix == "[1]"
        assert await there.retrieve(first.id, **inside) == first
        listed = [one async for one in there.list(*whose, limit=2, order="asc")]
        assert sorted(listed, key=lambda one: one.threshold_amount) == made
        newest = await there.list(*whose, limit=2)
        assert newest.data == listed[:2:-1]
        page = await there.list(*whose, before=newest.data[1].id)
        assert page.data == newest.data[:1]
        changed = await there.update(
            first.id,
            **inside,
            threshold_amount=9_99,
            currency="USD",
            interval="month",
            notification_channel={"type": "email", "recipients": ["a@b.c", "d@e.f", "a@b.c"]},
        )
        assert (changed.id, changed.threshold_amount) == (first.id, 9_99)
        assert changed.notification_channel.recipients == ["a@b.c", "d@e.f"]
        assert changed.notification_channel.subject_prefix is None
        gone = await there.delete(first.id, **inside)
        assert (gone.id, gone.object) == (first.id, f"{level}.spend_alert.deleted")
        for use in (there.retrieve, there.delete):
            with pytest.raises(openai.NotFoundError):
                await use(first.id, **inside)
        assert len((await there.list(*whose)).data) == 4


async def test_an_alert_of_one_level_is_not_there_for_another(studio: World) -> None:
    await studio.key()
    await studio.key(project="other")
    one, other = [str(row["id"]) for row in await studio.rows("SELECT id FROM projects")]
    async with plain(studio) as client:
        made = (await client.post(f"/projects/{one}/spend_alerts", json=WHOLE)).json()
        for level in ("", f"/projects/{other}", "/projects/none"):
            path = f"{level}/spend_alerts/{made['id']}"
            assert refusal(await client.get(path)) == (404, None, None)
            assert refusal(await client.post(path, json=WHOLE)) == (404, None, None)
            assert refusal(await client.delete(path)) == (404, None, None)
        listed = (await client.get(f"/projects/{one}/spend_alerts")).json()["data"]
    assert listed == [made]


async def test_a_key_has_alerts_by_day_month_and_in_total(studio: World) -> None:
    key = await studio.key()
    path = f"/projects/{await project_of(studio)}/api_keys/{key.id}/spend_alerts"
    async with plain(studio) as client:
        made = [
            (await client.post(path, json=WHOLE | {"interval": interval})).json()
            for interval in ("day", "month", "total")
        ]
        assert [one["interval"] for one in made] == ["day", "month", "total"]
        assert {one["object"] for one in made} == {"project.api_key.spend_alert"}
        assert len(await every(studio, path, limit=1)) == 3
        gone = (await client.delete(f"{path}/{made[0]['id']}")).json()
        assert gone["object"] == "project.api_key.spend_alert.deleted"
        none = path.replace(key.id, "key_none")
        assert refusal(await client.get(none)) == (404, None, None)


async def test_an_alert_that_nobody_can_be_mailed_says_so(tmp_path: Path) -> None:
    async with world(tmp_path / "without") as made, plain(made) as client:
        alert = (await client.post("/spend_alerts", json=WHOLE)).json()
        assert "smtp_host" in alert["warning"]
        assert (await client.get("/spend_alerts")).json()["data"] == [alert]
    mail: dict[str, Any] = {"smtp_host": "127.0.0.1", "smtp_from": "alerts@example.com"}
    async with world(tmp_path / "with", **mail) as made, plain(made) as client:
        assert "warning" not in (await client.post("/spend_alerts", json=WHOLE)).json()


async def test_a_webhook_is_refused_until_there_is_a_secret_to_sign_it_with(
    tmp_path: Path,
) -> None:
    body = WHOLE | {"notification_channel": {"type": "webhook", "url": "https://example.com/x?y"}}
    async with world(tmp_path / "without") as made, plain(made) as client:
        answer = await client.post("/spend_alerts", json=body)
        assert refusal(answer) == (400, "notification_channel.type", "invalid_value")
        assert "alert_webhook_secret" in answer.text
    async with (
        world(tmp_path / "with", alert_webhook_secret=SECRET) as made,
        plain(made) as client,
    ):
        alert = (await client.post("/spend_alerts", json=body)).json()
        assert alert["notification_channel"] == body["notification_channel"]
        assert "warning" not in alert
        wrong = ["ftp://example.com", "http://", "x", "http://a b/", "http://a:b/", 5, ""]
        for url in [*wrong, "http://xn--a/", "https://ann:hush@example.com/", "http://\u200d/"]:
            channel = {"type": "webhook", "url": url}
            answer = await client.post(
                "/spend_alerts", json=WHOLE | {"notification_channel": channel}
            )
            assert refusal(answer)[:2] == (400, "notification_channel.url"), url
            assert "hush" not in answer.text
    async with world(tmp_path / "with") as made, plain(made) as client:
        (alert,) = (await client.get("/spend_alerts")).json()["data"]
        assert "alert_webhook_secret" in alert["warning"]


@pytest.mark.parametrize(
    ("channel", "param", "code"),
    [
        ("ops@example.com", "", "invalid_type"),
        ({}, ".type", "missing_required_parameter"),
        ({"type": "pager"}, ".type", "invalid_value"),
        ({"type": "email"}, ".recipients", "missing_required_parameter"),
        ({"type": "email", "recipients": []}, ".recipients", "invalid_value"),
        ({"type": "email", "recipients": "a@b.c"}, ".recipients", "invalid_type"),
        ({"type": "email", "recipients": ["a@"]}, ".recipients", "invalid_value"),
        ({"type": "email", "recipients": ["a@b.c\r\nBcc: x@y.z"]}, ".recipients", "invalid_value"),
        ({"type": "email", "recipients": ["a@b.c"] * 51}, ".recipients", "invalid_value"),
        ({**EMAIL, "subject_prefix": "a\nb"}, ".subject_prefix", "invalid_value"),
        ({**EMAIL, "url": "https://example.com"}, ".url", "unknown_parameter"),
    ],
)
async def test_a_channel_that_is_wrong_is_refused_by_name(
    studio: World, channel: object, param: str, code: str
) -> None:
    async with plain(studio) as client:
        answer = await client.post("/spend_alerts", json=WHOLE | {"notification_channel": channel})
    assert refusal(answer) == (400, f"notification_channel{param}", code)
    assert await every(studio, "/spend_alerts") == []


async def test_nothing_of_an_archived_projects_alerts_can_be_changed_but_all_is_readable(
    studio: World,
) -> None:
    await studio.key()
    path = f"/projects/{await project_of(studio)}/spend_alerts"
    async with plain(studio) as client:
        made = (await client.post(path, json=WHOLE)).json()
        await studio.change("UPDATE projects SET archived_at = 1")
        for answer in (
            await client.post(path, json=WHOLE),
            await client.post(f"{path}/{made['id']}", json=WHOLE),
            await client.delete(f"{path}/{made['id']}"),
        ):
            assert refusal(answer) == (400, "project_id", "project_archived")
        assert (await client.get(f"{path}/{made['id']}")).json() == made
        assert (await client.get(path)).json()["data"] == [made]


async def test_an_alert_rings_once_when_its_threshold_is_crossed_and_the_list_says_how_far_it_got(
    studio: World,
) -> None:
    key = await studio.key()
    async with plain(studio) as client:
        alert = (await client.post("/spend_alerts", json=WHOLE | {"threshold_amount": 80})).json()
        await studio.ended(await studio.buy(key))
        assert await every(studio, "/alert_deliveries") == []
        await studio.ended(await studio.buy(key))
        await studio.ended(await studio.buy(key))
        (delivery,) = await every(studio, "/alert_deliveries")
        late = await client.post("/spend_alerts", json=WHOLE | {"threshold_amount": 100})
        second = await every(studio, "/alert_deliveries", limit=1)
    assert (delivery["object"], delivery["alert_id"]) == ("alert_delivery", alert["id"])
    assert (delivery["level"], delivery["name"]) == ("organization", "organization")
    assert (delivery["threshold_usd"], delivery["spent_usd"]) == ("0.80", "0.80")
    assert (delivery["limit_usd"], delivery["delivered_at"]) == (None, None)
    assert delivery["notification_channel"] == EMAIL
    assert delivery["failure"] in {None, "smtp_host_missing"}
    # Its threshold was crossed before it was made.
    assert {one["alert_id"] for one in second} == {alert["id"], late.json()["id"]}
