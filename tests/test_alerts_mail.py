"""Does mail arrive as it was meant, and only where the server is the right one?"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import trustme
import uvloop
from mail_tools import (
    LOGIN,
    PASSWORD,
    PostOffice,
    post_office,
    settings,
)
from test_alerts_message import HEADERS, crossing
from test_upstream_server import DEADLINE_SECONDS, serving

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.mail import MailSettings, send_mail
from gateway.alerts.message import Email, subject, text

ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"


async def send(
    to: MailSettings,
    *recipients: str,
    prefix: str | None = None,
    tls: ssl.SSLContext | None = None,
    seconds: float = 20.0,
    **changes: Any,
) -> str | None:
    return await send_mail(
        crossing(**changes),
        Email(recipients or (ANN,), prefix),
        settings=to,
        tls=tls or ssl.create_default_context(),
        seconds=seconds,
    )


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def failure_of(sending: Any) -> str:
    with pytest.raises(DeliveryFailed) as failure:
        await sending
    return failure.value.reason


async def test_a_mail_arrives_as_plain_text_for_all_recipients() -> None:
    async with post_office() as office:
        assert (
            await send(settings(office.port), ANN, BOB, prefix="[Prüfung]", name="Stüdio") is None
        )
    (mail,) = office.mails
    assert (mail.sender, mail.recipients) == ("gateway@studio.example", [ANN, BOB])
    message = mail.message
    assert message.keys() == HEADERS
    assert message["To"] == f"{ANN}, {BOB}"
    assert message["From"] == "Video gateway <gateway@studio.example>"
    assert message["Subject"] == subject(crossing(name="Stüdio"), prefix="[Prüfung]")
    assert message["Message-ID"] == "<alert_1%3A2026-11-01%3A10000000@studio.example>"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().replace("\r\n", "\n") == text(crossing(name="Stüdio"))


async def test_a_name_or_prefix_that_would_be_a_header_is_words() -> None:
    evil = f"\r\nBcc: {EVE}\r\n\r\n.\r\nRCPT TO:<{EVE}>\r\n=?utf-8?q?=0D=0ABcc:_{EVE}?="
    async with post_office() as office:
        await send(settings(office.port), prefix=evil, name=evil)
    (mail,) = office.mails
    assert mail.recipients == [ANN]
    assert mail.message.keys() == HEADERS


async def test_a_recipient_that_would_be_a_command_is_left_out() -> None:
    async with post_office() as office:
        evil = f"{BOB}>\r\nRCPT TO:<{EVE}"
        assert await send(settings(office.port), ANN, evil) == "mail_recipients 1 of 2"
        assert await failure_of(send(settings(office.port), evil)) == "mail_recipients"
    (mail,) = office.mails
    assert mail.recipients == [ANN]
    assert mail.message["To"] == ANN


async def test_a_mail_that_some_recipients_get_is_delivered() -> None:
    async with post_office() as office:
        office.refused = {BOB: "550 no such mailbox", EVE: "450 try later"}
        assert await send(settings(office.port), ANN, BOB, EVE) == "mail_recipients 2 of 3"
    (mail,) = office.mails
    assert mail.recipients == [ANN]


async def test_a_mail_that_nobody_gets_is_a_failure() -> None:
    async with post_office() as office:
        office.refused = {ANN: "550 no such mailbox", BOB: "550 no such mailbox"}
        reason = await failure_of(send(settings(office.port), ANN, BOB))
    assert (reason, office.mails) == ("mail_recipients 550", [])


async def test_a_message_that_the_server_refuses_is_a_failure() -> None:
    async with post_office() as office:
        office.refusal = "554 no alerts please"
        assert await failure_of(send(settings(office.port))) == "mail_status 554"


async def test_an_accepted_message_without_a_reply_is_a_failure_and_the_repeat_is_the_same() -> (
    None
):
    async with post_office() as office:
        office.drops = 1
        assert await failure_of(send(settings(office.port))) == "mail_broken_off"
        assert await send(settings(office.port)) is None
    first, second = office.mails
    assert first.raw == second.raw


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_tls_and_a_login_work(security: str) -> None:
    authority = trustme.CA()
    async with post_office(**{security: server_context(authority)}) as office:
        to = settings(office.port, security=security, username=LOGIN, password=PASSWORD)
        await send(to, tls=trusting(authority))
        wrong = settings(office.port, security=security, username=LOGIN, password="guess")
        assert await failure_of(send(wrong, tls=trusting(authority))) == "mail_login 535"
    (mail,) = office.mails
    assert (mail.tls or security == "tls", mail.login) == (True, True)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_nobody_vouches_for_or_of_another_is_refused(security: str) -> None:
    authority = trustme.CA()
    async with post_office(**{security: server_context(authority)}) as office:
        to = settings(office.port, security=security, username=LOGIN, password=PASSWORD)
        assert await failure_of(send(to)) == "mail_certificate"
    async with post_office(**{security: server_context(authority, "mail.example")}) as office:
        to = settings(office.port, security=security, username=LOGIN, password=PASSWORD)
        assert await failure_of(send(to, tls=trusting(authority))) == "mail_certificate"
    assert office.mails == []


async def test_nothing_is_sent_in_the_clear_where_tls_is_demanded() -> None:
    async with post_office() as office:
        starttls = settings(office.port, security="starttls", username=LOGIN, password=PASSWORD)
        assert await failure_of(send(starttls)) == "mail_not_offered"
        no_login = settings(office.port, security="starttls")
        assert await failure_of(send(no_login)) == "mail_not_offered"
        tls = settings(office.port, security="tls")
        assert await failure_of(send(tls)) == "mail_tls"
    assert office.mails == []


async def test_tls_that_is_not_wanted_is_not_begun() -> None:
    async with post_office(starttls=server_context(trustme.CA())) as office:
        assert await failure_of(send(settings(office.port))) == "mail_sender 530"


async def test_a_login_that_the_server_does_not_offer_is_a_failure() -> None:
    async with post_office() as office:
        to = settings(office.port, username=LOGIN, password=PASSWORD)
        assert await failure_of(send(to)) == "mail_not_offered"


async def test_a_server_that_says_nothing_is_left_after_the_deadline() -> None:
    async with serving([]) as server:
        assert await failure_of(send(settings(server.port), seconds=1.0)) == "mail_timeout"
        assert server.connections == 1


@pytest.mark.parametrize("greeting", [b"554 go away\r\n", b"hello\r\n", b""])
async def test_a_server_that_wants_no_mail_is_a_failure(greeting: bytes) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        reason = await failure_of(send(settings(port)))
    expected = {b"554 go away\r\n": "mail_status 554", b"hello\r\n": "mail_status -1"}
    assert reason == expected.get(greeting, "mail_unreachable")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "mail_unreachable"),
        ({"host": "nowhere.invalid"}, "mail_unreachable"),
        ({"host": f"{'a' * 70}.invalid"}, "mail_settings"),
        ({"host": "h\n"}, "mail_settings"),
        ({"sender": "nobody"}, "mail_sender"),
    ],
)
async def test_settings_that_lead_nowhere_are_a_failure(
    changes: dict[str, Any], reason: str
) -> None:
    assert await failure_of(send(settings(1, **changes))) == reason


def test_a_password_is_in_no_repr() -> None:
    assert PASSWORD not in repr(settings(25, password=PASSWORD))


@contextmanager
def post_office_in_a_thread(**contexts: ssl.SSLContext) -> Iterator[PostOffice]:
    """Run an SMTP server on a loop of its own: aiosmtpd speaks STARTTLS on asyncio's only."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        entering = stack.enter_async_context(post_office(**contexts))
        yield asyncio.run_coroutine_threadsafe(entering, loop).result(DEADLINE_SECONDS)
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(DEADLINE_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_works_on_both_loops(
    security: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    authority = trustme.CA()

    async def case(port: int) -> None:
        to = settings(port, security=security, username=LOGIN, password=PASSWORD)
        assert await send(to, tls=trusting(authority)) is None
        assert await failure_of(send(to)) == "mail_certificate"

    with post_office_in_a_thread(**{security: server_context(authority)}) as office:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(case(office.port))
        (mail,) = office.mails
        assert (mail.login, mail.recipients) == (True, [ANN])
