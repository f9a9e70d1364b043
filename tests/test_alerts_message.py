"""Does a message say what happened, and nothing that somebody put into a name?"""

import json
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mail_tools import EMAIL, NOW

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.mail import compose, is_address, sender_address
from gateway.alerts.message import (
    Crossing,
    Email,
    Webhook,
    event,
    one_line,
    read_channel,
    subject,
    text,
)

ENCODED_WORD = "=?utf-8?q?a=0D=0ABcc:_eve@example.com?="
HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
]
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            (
                *("\r\n", "\n", "\r", "\x85", "\u2028", "\x0b", "\x1c", "\r\n\r\n", "\r\n "),
                *("Bcc: eve@example.com", ENCODED_WORD, "=?", "?=", "=", "?utf-8?b?DQpCY2M6IGE=?="),
                *("=?utf-8?b?DQpCY2M6IGE=?=", '"', "<", ",", "\\", "ü", "\u202e", "\ud800"),
            )
        ),
    ),
    max_size=8,
).map("".join)


def crossing(**changes: Any) -> Crossing:
    defaults: dict[str, Any] = {
        "id": "alert_1:2026-11-01:10000000",
        "alert_id": "alert_1",
        "level": "project",
        "level_id": "proj_a",
        "name": "studio",
        "period": "month",
        "period_start": "2026-11-01",
        "threshold_micros": 10_000_000,
        "spent_micros": 10_400_000,
        "limit_micros": None,
        "created_at": NOW,
    }
    return Crossing(**(defaults | changes))


def parsed(raw: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(raw)
    assert isinstance(message, EmailMessage)
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Spend alert: project studio reached 10.00 USD in 2026-11"),
        (
            {"level": "key", "name": "ci", "period": "day", "period_start": "2026-11-30"},
            "Spend alert: key ci reached 10.00 USD on 2026-11-30",
        ),
        (
            {"level": "organization", "name": "organization", "period": "total"},
            "Spend alert: the organization reached 10.00 USD in total",
        ),
    ],
)
def test_a_subject_says_who_reached_what_and_when(changes: dict[str, str], words: str) -> None:
    assert subject(crossing(**changes), prefix=None) == words
    assert subject(crossing(**changes), prefix="[prod]") == f"[prod] {words}"


def test_the_text_has_the_figures_and_the_ids() -> None:
    lines = text(crossing(limit_micros=20_000_000)).splitlines()
    for line in (
        "Period:     month, in 2026-11 (UTC)",
        "Threshold:  10.00 USD",
        "Spent:      10.40 USD",
        "Budget:     20.00 USD",
        "Id:         proj_a",
        "Alert:      alert_1",
        "Delivery:   alert_1:2026-11-01:10000000",
    ):
        assert line in lines
    assert "Budget:     none" in text(crossing())


def test_an_event_has_the_form_of_openais() -> None:
    assert json.loads(event(crossing(name="Stüdio"))) == {
        "id": "alert_1:2026-11-01:10000000",
        "object": "event",
        "created_at": NOW,
        "type": "spend_alert.crossed",
        "data": {
            "alert_id": "alert_1",
            "level": "project",
            "id": "proj_a",
            "name": "Stüdio",
            "period": "month",
            "period_start": "2026-11-01",
            "threshold_usd": "10.00",
            "spent_usd": "10.40",
            "limit_usd": None,
        },
    }
    assert json.loads(event(crossing(limit_micros=1)))["data"]["limit_usd"] == "0.000001"


def test_a_channel_is_read_as_it_was_written() -> None:
    assert read_channel(json.dumps(EMAIL)) == Email(("ann@example.com",), None)
    prefixed = EMAIL | {"subject_prefix": "[prod]"}
    assert read_channel(json.dumps(prefixed)) == Email(("ann@example.com",), "[prod]")
    assert read_channel('{"type": "webhook", "url": "http://a/"}') == Webhook("http://a/")


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "{",
        "[]",
        '{"type": "pager"}',
        '{"type": "webhook"}',
        '{"type": "webhook", "url": 1}',
        '{"type": "email", "recipients": "ann@example.com"}',
        '{"type": "email", "recipients": [1]}',
        '{"type": "email", "recipients": [], "subject_prefix": 1}',
    ],
)
def test_a_channel_that_is_none_is_refused(channel: str) -> None:
    with pytest.raises(ValueError, match=r"channel|Expecting"):
        read_channel(channel)


@settings(deadline=None)
@given(prefix=HOSTILE, name=HOSTILE, sender=HOSTILE)
@example(prefix=ENCODED_WORD, name=ENCODED_WORD, sender=ENCODED_WORD)
@example(prefix="", name="", sender=ENCODED_WORD * 2)
@example(prefix="\r\nBcc: eve@example.com", name="\r\n\r\nnew text", sender="\r\nBcc: a")
def test_no_name_and_no_prefix_makes_a_header(prefix: str, name: str, sender: str) -> None:
    quoted = one_line(sender).replace("\\", "").replace('"', "")
    raw = compose(
        crossing(name=name),
        ["ann@example.com", "bob@example.com"],
        prefix=prefix,
        sender=f'"{quoted}" <gateway@studio.example>',
    ).as_bytes()
    assert raw.isascii()
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    message = parsed(raw)
    assert message.keys() == HEADERS
    assert [one.addr_spec for one in message["To"].addresses] == [
        "ann@example.com",
        "bob@example.com",
    ]
    assert [one.addr_spec for one in message["From"].addresses] == ["gateway@studio.example"]
    assert len(str(message["Subject"]).splitlines()) == 1
    assert message.get_content().replace("\r\n", "\n") == text(crossing(name=name))


@settings(deadline=None)
@given(words=HOSTILE)
def test_one_line_is_one_line_and_stays_as_it_is(words: str) -> None:
    line = one_line(words)
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    assert line.isprintable()


@pytest.mark.parametrize("prefix", ["[Prüfung]", "預算", "x" * 500])
def test_a_prefix_reads_as_it_was_set(prefix: str) -> None:
    message = parsed(
        compose(crossing(), ["ann@example.com"], prefix=prefix, sender="a@example.com").as_bytes()
    )
    assert message["Subject"] == subject(crossing(), prefix=prefix)
    assert str(message["Subject"]).startswith(prefix[:120])


def test_many_recipients_fit_on_lines_that_mail_allows() -> None:
    recipients = [f"{'a' * 60}{number}@{'b' * 60}.example" for number in range(100)]
    raw = compose(crossing(), recipients, prefix=None, sender="a@example.com").as_bytes()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert [one.addr_spec for one in parsed(raw)["To"].addresses] == recipients


def test_a_repeat_is_the_same_message() -> None:
    first, second = (
        compose(crossing(), ["ann@example.com"], prefix=None, sender="a@b.example").as_bytes()
        for _ in range(2)
    )
    assert first == second
    assert parsed(first)["Message-ID"] == "<alert_1%3A2026-11-01%3A10000000@b.example>"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@example.com\r\nRCPT TO:<eve@example.com>",
        "ann@example.com\n",
        "ann@exa mple.com",
        "<ann@example.com>",
        "ann@example.com, eve@example.com",
        '"a b"@example.com',
        "ann@example..com",
        "änn@example.com",
        "ann@example.com> SIZE=1",
    ],
)
def test_what_is_no_plain_address_is_none(value: str) -> None:
    assert not is_address(value)


def test_a_senders_name_is_shown_without_what_would_have_to_be_quoted() -> None:
    sender = '"Prüfung, Inc. <of us>" <a@example.com>'
    raw = compose(crossing(), ["ann@example.com"], prefix=None, sender=sender).as_bytes()
    assert parsed(raw)["From"] == "Prüfung Inc of us <a@example.com>"


@pytest.mark.parametrize("sender", ["", "Alerts", "Alerts, us <a@example.com>", "<a@b>\r\nBcc: c"])
def test_a_sender_that_is_no_address_is_a_failure(sender: str) -> None:
    if sender.startswith("<a@b>"):
        assert sender_address(sender) == "a@b"
        message = compose(crossing(), ["ann@example.com"], prefix=None, sender=sender)
        assert parsed(message.as_bytes()).keys() == HEADERS
        return
    with pytest.raises(DeliveryFailed, match="mail_sender"):
        sender_address(sender)
