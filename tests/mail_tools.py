"""What do the tests of alerts stand on? An SMTP server, an outbox, and loops that deliver.

Run as a program, it delivers alerts until it kills itself at a step: see test_alerts_crashes.py.
"""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from databases import opened_at
from prometheus_client import CollectorRegistry

from gateway.alerts.deliver import Delivering, deliver_forever
from gateway.alerts.mail import MailSettings
from gateway.clock import Clock, system_clock
from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.opening import open_database_url
from gateway.db.script import Script, Sql
from gateway.telemetry.metrics.alerts import AlertMetrics

NOW = int(datetime(2026, 11, 30, 23, 0, tzinfo=UTC).timestamp())
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
LOGIN, PASSWORD = "gateway", "open sesame"
EMAIL = {"type": "email", "recipients": ["ann@example.com"], "subject_prefix": None}


@dataclass
class Hands:
    """A clock whose hands a test moves; they stand still otherwise."""

    now: int = NOW

    def clock(self) -> Clock:
        base = system_clock()
        return Clock(
            now=lambda: self.now,
            elapsed=lambda: float(self.now),
            new_id=base.new_id,
            chance=lambda: 0.0,
        )


@dataclass(frozen=True)
class Mail:
    """A message as an SMTP server accepted it."""

    sender: str
    recipients: list[str]
    raw: bytes
    tls: bool
    login: bool

    @property
    def message(self) -> EmailMessage:
        message = BytesParser(policy=policy.default).parsebytes(self.raw)
        assert isinstance(message, EmailMessage)
        return message


@dataclass
class PostOffice:
    """What an SMTP server is to do, and what it has accepted.

    Attributes:
        refused: what it says to recipients that it does not want.
        drops: how many more messages it accepts and then says nothing of.
    """

    port: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    drops: int = 0
    mails: list[Mail] = field(default_factory=list)

    # The names of these two are aiosmtpd's.
    async def handle_RCPT(  # noqa: N802
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.refusal is not None:
            return self.refusal
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        self.mails.append(
            Mail(
                sender=envelope.mail_from,
                recipients=list(envelope.rcpt_tos),
                raw=envelope.content,
                tls=session.ssl is not None,
                login=bool(session.authenticated),
            )
        )
        if self.drops:
            self.drops -= 1
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 OK"


def authenticate(
    _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, told: Any
) -> AuthResult:
    assert isinstance(told, LoginPassword)
    return AuthResult(success=told == (LOGIN.encode(), PASSWORD.encode()), handled=False)


@asynccontextmanager
async def post_office(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[PostOffice]:
    """Run an SMTP server on loopback; with TLS of either kind it demands a login."""
    office = PostOffice()
    loop = asyncio.get_running_loop()

    def factory() -> SMTP:
        return SMTP(
            office,
            hostname="localhost",
            loop=loop,
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_required=starttls is not None,
            auth_require_tls=tls is None,
            authenticator=authenticate,
        )

    listener = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls)
    office.port = listener.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        listener.close()
        await listener.wait_closed()


def settings(port: int, **changes: Any) -> MailSettings:
    defaults: dict[str, Any] = {
        "host": "localhost",
        "port": port,
        "security": "none",
        "username": "",
        "password": "",
        "sender": "Video gateway <gateway@studio.example>",
    }
    return MailSettings(**(defaults | changes))


def put(
    number: int | str = 1, *, channel: Mapping[str, Any] | str, now: int = NOW, **changes: Any
) -> Script[None]:
    """Write an outbox row as the transaction that crosses a threshold does; it is due at once."""
    row: dict[str, Any] = {
        "id": f"alert_{number}:2026-11-01:10000000",
        "alert_id": f"alert_{number}",
        "level": "project",
        "level_id": "proj_a",
        "name": "studio",
        "period": "month",
        "period_start": "2026-11-01",
        "threshold_micros": 10_000_000,
        "spent_micros": 10_400_000,
        "limit_micros": 20_000_000,
        "channel": channel if isinstance(channel, str) else json.dumps(channel),
        "created_at": now,
        "due_at": now,
        "claim_number": 0,
        "attempts": 0,
    } | changes
    marks = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    yield Sql(
        f"INSERT INTO alert_deliveries ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
    )


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    """A migrated database."""
    async with opened_at(path) as database:
        await migrate(database, now=NOW)
        yield database


def webhook(url: str) -> dict[str, Any]:
    return {"type": "webhook", "url": url}


async def outbox(database: Database) -> dict[str, dict[str, Any]]:
    """Every delivery by the id of its alert."""

    def script() -> Script[list[dict[str, Any]]]:
        return [dict(row) for row in (yield Sql("SELECT * FROM alert_deliveries"))]

    return {row["alert_id"]: row for row in await database.read(script)}


def means(database: Database, clock: Clock, **changes: Any) -> Delivering:
    defaults: dict[str, Any] = {
        "mail": None,
        "webhook_secret": SECRET,
        "wake": asyncio.Event(),
        "on_step": lambda _: None,
        "jitter": lambda: 0.0,
        "metrics": AlertMetrics(CollectorRegistry()),
    }
    return Delivering(database=database, clock=clock, **(defaults | changes))


@asynccontextmanager
async def delivering(database: Database, clock: Clock, **changes: Any) -> AsyncIterator[Delivering]:
    """Run a loop that delivers while the context is open."""
    made = means(database, clock, **changes)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(deliver_forever(made))
        yield made
        loop.cancel()


def main(told: dict[str, Any]) -> None:
    def on_step(reached: str) -> None:
        if reached == told["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        async with open_database_url(told["database"]) as database:
            mail = settings(told["smtp_port"])
            await deliver_forever(
                means(database, Hands(told["now"]).clock(), mail=mail, on_step=on_step)
            )

    asyncio.run(run())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
