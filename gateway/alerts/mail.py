"""How does an alert reach mailboxes?

One message to all recipients by the operator's SMTP server. When the server has accepted it for
one of them it is delivered; who was refused is noted. After a deadline or a lost connection the
server may have it nevertheless: it comes again with the same Message-ID.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

import aiosmtplib

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.message import Crossing, Email, one_line, subject, text

Security: TypeAlias = Literal["starttls", "tls", "none"]

MAIL_SECONDS: Final = 30.0
# To say goodbye, once the message is accepted; part of nobody's deadline.
QUIT_SECONDS: Final = 2.0
# The address of an HTML form (https://html.spec.whatwg.org/#valid-e-mail-address): ASCII, nothing
# quoted, nothing that could end an SMTP command or a header.
_LOCAL: Final = r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
_ADDRESS: Final = re.compile(_LOCAL + r"@(?=.{1,255}\Z)[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*")

# What would have to be quoted in a name (RFC 5322, 3.2.3): where Python folds a long quoted name,
# it loses the quotes, and the words become addresses.
_SPECIALS: Final = re.compile(r'[()<>\[\]:;@\\,."]')

# The first class that fits says why, so the order matters: timeouts are OSErrors, too.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiosmtplib.SMTPRecipientsRefused, "mail_recipients"),
    (aiosmtplib.SMTPAuthenticationError, "mail_login"),
    (aiosmtplib.SMTPSenderRefused, "mail_sender"),
    (aiosmtplib.SMTPResponseException, "mail_status"),
    (TimeoutError, "mail_timeout"),
    (ssl.SSLCertVerificationError, "mail_certificate"),
    (ssl.SSLError, "mail_tls"),
    (aiosmtplib.SMTPServerDisconnected, "mail_broken_off"),
    (OSError, "mail_unreachable"),
    # STARTTLS, or a login, that the server does not offer.
    (aiosmtplib.SMTPException, "mail_not_offered"),
    # A host, or a login, that cannot be written into a command.
    (ValueError, "mail_settings"),
    # uvloop, where a transport is closed under a write.
    (RuntimeError, "mail_broken_off"),
)


@dataclass(frozen=True, slots=True)
class MailSettings:
    """The operator's SMTP server.

    Attributes:
        security: `starttls` and `tls` verify the certificate and send nothing without it.
        username: empty for no login.
        sender: `alerts@example.com`, or `Alerts <alerts@example.com>`.
    """

    host: str
    port: int
    security: Security
    username: str
    password: str = field(repr=False)
    sender: str


async def send_mail(
    crossing: Crossing,
    email: Email,
    *,
    settings: MailSettings,
    tls: ssl.SSLContext,
    seconds: float,
) -> str | None:
    """Hand the message to the server; return a note where it refused some of the recipients.

    Raises:
        DeliveryFailed: it is not known to have accepted the message for anybody.
    """
    recipients = [one for one in email.recipients if is_recipient(one)]
    if not recipients:
        raise DeliveryFailed("mail_recipients")
    message = compose(crossing, recipients, prefix=email.subject_prefix, sender=settings.sender)
    client = _client(settings, tls=tls, seconds=seconds)
    try:
        async with asyncio.timeout(seconds):
            await client.connect()
            refused, _ = await client.sendmail(
                sender_address(settings.sender), recipients, message.as_bytes()
            )
        with suppress(aiosmtplib.SMTPException, OSError):
            await client.quit(timeout=QUIT_SECONDS)
    except (aiosmtplib.SMTPException, OSError, ValueError, RuntimeError) as error:
        raise DeliveryFailed(_reason(error)) from error
    finally:
        client.close()
    missed = len(email.recipients) - len(recipients) + len(refused)
    return f"mail_recipients {missed} of {len(email.recipients)}" if missed else None


def compose(
    crossing: Crossing, recipients: Sequence[str], *, prefix: str | None, sender: str
) -> EmailMessage:
    """Return the message, the same in every repeat.

    Raises:
        DeliveryFailed: the sender is no address.
    """
    address = sender_address(sender)
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = _mailbox(address, name=_SPECIALS.sub(" ", parseaddr(sender)[0]))
    message["To"] = [_mailbox(one) for one in recipients]
    message["Subject"] = subject(crossing, prefix=prefix)
    message["Date"] = format_datetime(datetime.fromtimestamp(crossing.created_at, UTC))
    # Quoted, an id is what RFC 5322 (3.6.4) allows left of the @, and still names one delivery.
    message["Message-ID"] = f"<{quote(crossing.id, safe='')}@{address.rpartition('@')[2]}>"
    # RFC 3834: no out-of-office replies.
    message["Auto-Submitted"] = "auto-generated"
    # Seven bits, so that no server's extensions matter.
    message.set_content(text(crossing), cte="quoted-printable")
    return message


def is_address(value: str) -> bool:
    """Tell whether mail can be sent there."""
    return _ADDRESS.fullmatch(value) is not None


def is_recipient(value: str) -> bool:
    """Tell whether a mail server may know whom that means: an address, or a mailbox of its own."""
    return is_address(value) or re.fullmatch(_LOCAL, value) is not None


def sender_address(sender: str) -> str:
    """Return the bare address of the sender.

    Raises:
        DeliveryFailed: there is none.
    """
    address = parseaddr(sender)[1]
    if not is_address(address):
        raise DeliveryFailed("mail_sender")
    return address


def _client(settings: MailSettings, *, tls: ssl.SSLContext, seconds: float) -> aiosmtplib.SMTP:
    try:
        return aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            timeout=seconds,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=tls,
            username=settings.username or None,
            password=settings.password if settings.username else None,
        )
    except ValueError as error:
        raise DeliveryFailed(_reason(error)) from error


def _mailbox(address: str, *, name: str = "") -> Address:
    local, _, domain = address.partition("@")
    return Address(display_name=one_line(name), username=local, domain=domain)


def _reason(error: Exception) -> str:
    """Return fixed words, and the server's code where it gave one."""
    if isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__
    words = next(words for kind, words in _REASONS if isinstance(error, kind))
    refused = error.recipients[0] if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else error
    if isinstance(refused, aiosmtplib.SMTPResponseException):
        return f"{words} {refused.code}"
    return words
