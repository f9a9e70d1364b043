"""Does every alert arrive once at least, however long it takes, and does an alarm ring if not?"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import DEADLINE_SECONDS, LogLines, eventually
from databases import opened_at
from mail_tools import (
    EMAIL,
    LOGIN,
    NOW,
    PASSWORD,
    SECRET,
    Hands,
    delivering,
    means,
    opened,
    outbox,
    post_office,
    put,
    settings,
    webhook,
)
from test_alerts_webhook import received
from test_upstream_server import Act, Peer, Server, answer_and_close, reply, reset, serving, silence

from gateway.alerts.deliver import CONCURRENCY, GIVE_UP_SECONDS, STEPS, deliver
from gateway.alerts.outbox import claim_due
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable
from gateway.turns import LEASE_SECONDS

OK = answer_and_close(reply())
NO = answer_and_close(reply("503 Service Unavailable"))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def settled(database: Database, alert_id: str = "alert_1") -> dict[str, Any]:
    """Wait until nothing is left to be done for a delivery, and return it."""

    async def over() -> dict[str, Any] | None:
        row = (await outbox(database))[alert_id]
        return row if row["due_at"] is None else None

    found: dict[str, Any] = await eventually(over)
    return found


async def tried(
    database: Database, hands: Hands, attempts: int, alert_id: str = "alert_1"
) -> dict[str, Any]:
    """Wait until the n-th try of a delivery is over, and return it."""

    async def over() -> dict[str, Any] | None:
        row = (await outbox(database))[alert_id]
        # No wait is as long as a lease, and the clock stands still.
        under_way = row["due_at"] == hands.now + LEASE_SECONDS
        return row if row["attempts"] >= attempts and not under_way else None

    found: dict[str, Any] = await eventually(over)
    return found


def ids(server: Server) -> list[str]:
    return [received(request)[0]["webhook-id"] for request in server.requests]


async def test_an_alert_is_delivered_once(database: Database, logged: LogLines) -> None:
    steps: list[str] = []
    clock = Hands().clock()
    async with post_office() as office, serving([OK]) as server:
        await database.run(partial(put, 1, channel=EMAIL))
        await database.run(partial(put, 2, channel=webhook(server.url)))
        async with delivering(
            database, clock, mail=settings(office.port), on_step=steps.append
        ) as loop:
            for alert_id in ("alert_1", "alert_2"):
                row = await settled(database, alert_id)
                assert (row["delivered_at"], row["attempts"], row["failure"]) == (NOW, 1, None)
            loop.wake.set()
        assert len(office.mails) == len(server.requests) == 1
    assert sorted(steps) == sorted(STEPS * 2)
    lines = logged.lines("alert_delivered")
    assert {line["delivery_id"] for line in lines} == {
        "alert_1:2026-11-01:10000000",
        "alert_2:2026-11-01:10000000",
    }
    assert {line["level"] for line in lines} == {"info"}


async def test_an_alert_that_is_put_in_later_wakes_the_loop(database: Database) -> None:
    async with serving([OK]) as server, delivering(database, Hands().clock()) as loop:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        loop.wake.set()
        assert (await settled(database))["delivered_at"] == NOW


async def test_a_failure_is_tried_again_ever_more_rarely_until_an_alarm_rings(
    database: Database, logged: LogLines
) -> None:
    hands = Hands()
    await database.run(partial(put, 1, channel=webhook("http://127.0.0.1:1/?key=hush")))
    waits: list[int] = []
    # A context made once: reading the system's certificates eighty times is what takes long.
    tls = ssl.create_default_context()
    async with delivering(database, hands.clock(), tls=lambda: tls) as loop:
        while (row := await tried(database, hands, len(waits) + 1))["due_at"] is not None:
            waits.append(row["due_at"] - hands.now)
            hands.now = row["due_at"]
            loop.wake.set()
    assert waits[:10] == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]
    assert set(waits[10:-1]) == {3600}
    assert sum(waits) == GIVE_UP_SECONDS
    assert (row["given_up_at"], row["delivered_at"]) == (NOW + GIVE_UP_SECONDS, None)
    (warning,) = logged.lines("alert_delivery_failed")
    (alarm,) = logged.lines("alert_not_delivered")
    assert (warning["level"], warning["retry_seconds"]) == ("warning", 10)
    assert (alarm["level"], alarm["failure"]) == ("error", "webhook_unreachable")
    assert alarm["delivery_id"] == row["id"]
    for secret in ("hush", SECRET, "127.0.0.1"):
        assert secret not in logged.getvalue()
        assert secret not in row["failure"]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (NO, "webhook_status 503"),
        (answer_and_close(reply("302 Found", headers="location: /\r\n")), "webhook_status 302"),
        (silence, "webhook_timeout"),
        (reset, "webhook_broken_off"),
    ],
)
async def test_what_the_receiver_did_not_acknowledge_comes_again_under_the_same_id(
    database: Database, logged: LogLines, act: Act, reason: str
) -> None:
    hands = Hands()
    async with serving([act, act, OK]) as server:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        # Long enough for a busy machine to connect in, short enough to wait for twice.
        seconds = 2.0 if act is silence else DEADLINE_SECONDS
        async with delivering(database, hands.clock(), webhook_seconds=seconds) as loop:
            for attempts, wait_seconds in ((1, 10), (2, 20)):
                row = await tried(database, hands, attempts)
                assert row["failure"] == reason
                assert row["due_at"] - hands.now == wait_seconds
                hands.now += wait_seconds
                loop.wake.set()
            row = await settled(database)
    assert (row["attempts"], row["failure"], row["delivered_at"]) == (3, None, NOW + 30)
    assert ids(server) == [row["id"]] * 3
    bodies = {received(request)[1] for request in server.requests}
    stamps = [received(request)[0]["webhook-timestamp"] for request in server.requests]
    assert len(bodies) == 1
    assert stamps == [str(NOW), str(NOW + 10), str(NOW + 30)]
    assert len(logged.lines("alert_delivery_failed")) == 1


async def test_a_reason_that_changes_is_logged_anew(database: Database, logged: LogLines) -> None:
    hands = Hands()
    async with serving([NO, NO, reset, OK]) as server:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        async with delivering(database, hands.clock()) as loop:
            for attempts in (1, 2, 3):
                hands.now = (await tried(database, hands, attempts))["due_at"]
                loop.wake.set()
            await settled(database)
    failures = [line["failure"] for line in logged.lines("alert_delivery_failed")]
    assert failures == ["webhook_status 503", "webhook_broken_off"]


async def test_chance_is_an_argument(database: Database) -> None:
    hands = Hands()
    await database.run(partial(put, 1, channel=webhook("http://127.0.0.1:1/")))
    async with delivering(database, hands.clock(), jitter=lambda: 0.99):
        assert (await tried(database, hands, 1))["due_at"] == NOW + 11


async def test_a_mail_that_the_server_accepted_for_some_is_delivered(
    database: Database, logged: LogLines
) -> None:
    channel = EMAIL | {"recipients": ["ann@example.com", "bob@example.com"]}
    async with post_office() as office:
        office.refused = {"bob@example.com": "550 no such mailbox"}
        await database.run(partial(put, 1, channel=channel))
        async with delivering(database, Hands().clock(), mail=settings(office.port)):
            row = await settled(database)
    assert (row["delivered_at"], row["failure"]) == (NOW, "mail_recipients 1 of 2")
    (line,) = logged.lines("alert_delivered")
    assert line["failure"] == "mail_recipients 1 of 2"


async def test_a_mail_nobody_is_known_to_have_comes_again_under_the_same_message_id(
    database: Database,
) -> None:
    hands = Hands()
    async with post_office() as office:
        office.drops = 1
        await database.run(partial(put, 1, channel=EMAIL))
        async with delivering(database, hands.clock(), mail=settings(office.port)) as loop:
            hands.now = (await tried(database, hands, 1))["due_at"]
            loop.wake.set()
            row = await settled(database)
    assert (row["attempts"], row["delivered_at"]) == (2, NOW + 10)
    first, second = (one.message["Message-ID"] for one in office.mails)
    assert first == second == "<alert_1%3A2026-11-01%3A10000000@studio.example>"


async def test_mail_goes_by_starttls_with_a_login(database: Database) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    hands = Hands()
    async with post_office(starttls=context) as office:
        to = settings(office.port, security="starttls", username=LOGIN, password=PASSWORD)
        await database.run(partial(put, 1, channel=EMAIL))
        async with delivering(database, hands.clock(), mail=to):
            assert (await tried(database, hands, 1))["failure"] == "mail_certificate"
        hands.now += 10
        async with delivering(database, hands.clock(), mail=to, tls=lambda: trusting):
            await settled(database)
    (mail,) = office.mails
    assert (mail.tls, mail.login) == (True, True)


async def test_what_is_not_configured_is_delivered_once_it_is(
    database: Database, logged: LogLines
) -> None:
    hands = Hands()
    async with post_office() as office, serving([OK]) as server:
        await database.run(partial(put, 1, channel=EMAIL))
        await database.run(partial(put, 2, channel=webhook(server.url)))
        async with delivering(database, hands.clock(), mail=None, webhook_secret=""):
            first = await tried(database, hands, 1, "alert_1")
            second = await tried(database, hands, 1, "alert_2")
        assert first["failure"] == "smtp_host_missing"
        assert second["failure"] == "webhook_secret_missing"
        assert {line["level"] for line in logged.lines("alert_delivery_failed")} == {"warning"}
        hands.now += 10
        async with delivering(database, hands.clock(), mail=settings(office.port)):
            await settled(database, "alert_1")
            await settled(database, "alert_2")
    assert len(office.mails) == len(server.requests) == 1


async def test_a_channel_that_cannot_be_read_spoils_its_own_delivery_only(
    database: Database,
) -> None:
    hands = Hands()
    async with serving([OK]) as server:
        await database.run(partial(put, 1, channel="{"))
        await database.run(partial(put, 2, channel=webhook(server.url)))
        async with delivering(database, hands.clock()):
            await settled(database, "alert_2")
            assert (await tried(database, hands, 1))["failure"] == "channel_unknown"


async def test_a_hung_receiver_does_not_delay_anothers_delivery(database: Database) -> None:
    gate = asyncio.Event()

    async def hang(peer: Peer) -> None:
        await peer.read_request()
        await gate.wait()
        await peer.send(reply())

    hung_count = 7
    hands = Hands()
    async with serving([hang] * hung_count) as hung, serving([OK] * 5) as server:
        for number in range(hung_count):
            await database.run(partial(put, f"hung{number}", channel=webhook(hung.url)))
        async with delivering(database, hands.clock(), webhook_seconds=60) as loop:
            await hung.until(lambda: len(hung.requests) == hung_count)
            for number in range(5):
                await database.run(partial(put, number, channel=webhook(server.url)))
            loop.wake.set()
            for number in range(5):
                assert (await settled(database, f"alert_{number}"))["attempts"] == 1
            assert hung.closed == 0
            gate.set()
            for number in range(hung_count):
                await settled(database, f"alert_hung{number}")


@pytest.mark.costly
async def test_receivers_that_hang_in_every_place_are_left_after_their_deadline(
    database: Database,
) -> None:
    hands = Hands()
    async with serving([silence] * 2 * CONCURRENCY) as hung, serving([OK]) as server:
        for number in range(2 * CONCURRENCY):
            await database.run(partial(put, f"hung{number}", channel=webhook(hung.url)))
        async with delivering(database, hands.clock(), webhook_seconds=2.0) as loop:
            await hung.until(lambda: len(hung.requests) >= CONCURRENCY)
            await database.run(partial(put, 1, channel=webhook(server.url)))
            loop.wake.set()
            await settled(database)
            for number in range(2 * CONCURRENCY):
                row = await tried(database, hands, 1, f"alert_hung{number}")
                assert row["failure"] == "webhook_timeout"


async def test_two_processes_deliver_each_alert_once(tmp_path: Path, database: Database) -> None:
    count = 40
    clock = Hands().clock()
    async with opened_at(tmp_path / "gateway.db") as other, serving([OK] * count) as server:
        for number in range(count):
            await database.run(partial(put, number, channel=webhook(server.url)))
        async with delivering(database, clock), delivering(other, clock):
            for number in range(count):
                assert (await settled(database, f"alert_{number}"))["attempts"] == 1
    assert len(ids(server)) == len(set(ids(server))) == count


async def test_a_delivery_whose_lease_was_lost_writes_and_logs_nothing(
    database: Database, logged: LogLines
) -> None:
    hands = Hands()
    async with serving([OK]) as server:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        take = partial(claim_due, limit=1, lease_ends_at=NOW, now=NOW)
        (lost,), _ = await database.run(take), await database.run(take)
        before = await outbox(database)
        await deliver(means(database, hands.clock()), lost)
        assert await outbox(database) == before
    assert len(server.requests) == 1
    assert logged.lines() == []


async def test_a_database_that_fails_after_the_send_makes_it_come_again(
    database: Database, logged: LogLines
) -> None:
    hands = Hands()
    steps: list[str] = []

    def on_step(step: str) -> None:
        steps.append(step)
        if steps.count("alert.sent") == 1 and step == "alert.sent":
            raise DatabaseUnavailable("gone")

    async with serving([OK, OK]) as server:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        async with delivering(database, hands.clock(), on_step=on_step) as loop:

            async def told() -> list[dict[str, Any]]:
                return logged.lines("turn_not_recorded")

            (line,) = await eventually(told)
            hands.now += LEASE_SECONDS
            loop.wake.set()
            row = await settled(database)
    assert line["delivery_id"] == row["id"]
    assert ids(server) == [row["id"]] * 2


async def test_a_defect_backs_off_is_given_up_and_logged_with_its_traceback_once(
    database: Database, logged: LogLines
) -> None:
    hands = Hands()

    def broken() -> ssl.SSLContext:
        raise LookupError("a defect of ours")

    await database.run(partial(put, 1, channel=webhook("http://127.0.0.1:1/")))
    waits: list[int] = []
    async with delivering(database, hands.clock(), tls=broken) as loop:
        while (row := await tried(database, hands, len(waits) + 1))["due_at"] is not None:
            waits.append(row["due_at"] - hands.now)
            hands.now = row["due_at"]
            loop.wake.set()
    assert waits[:4] == [10, 20, 40, 80]
    assert (row["given_up_at"], row["failure"]) == (NOW + GIVE_UP_SECONDS, "defect")
    (defect,) = logged.lines("alert_defect")
    assert defect["level"] == "error"
    assert "LookupError: a defect of ours" in defect["exception"]
    assert len(logged.lines("alert_delivery_failed")) == 1
    (alarm,) = logged.lines("alert_not_delivered")
    assert alarm["failure"] == "defect"
