"""A message as it stands on the wire: envelope commands, and a body that cannot end before its end.

It must not know sockets: a test of every hostile byte needs none.
"""

import re
from collections.abc import Callable
from typing import Protocol

from lifecycle_emails.delivery.reply import Outcome, Phase, no_answer
from lifecycle_emails.errors import ConfigurationError, InvalidAddress

END_OF_DATA = b".\r\n"
"""Follows a body that ends in CRLF; with it the server becomes responsible (RFC 5321 section 4.1.1.4)."""

# One path of RFC 5321 section 4.1.2, and no way out of the angle brackets around it.
_PATH = re.compile(
    r"""(?:[^\x00-\x20\x7f-\x9f"<>(),:;@\[\]\\]+ | "(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[\x20-\x7e])*")
        @(?:[^\x00-\x20\x7f-\x9f"<>(),:;@\[\]\\]+ | \[[0-9A-Za-z.:-]+\])""",
    re.VERBOSE,
)
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Message(Protocol):
    """What a dialogue needs of a rendered message."""

    @property
    def sender(self) -> str:
        """The envelope sender, one address."""

    @property
    def recipient(self) -> str:
        """The envelope recipient, one address."""

    @property
    def content(self) -> bytes:
        """Header and body, not dot-stuffed."""

    @property
    def needs_smtputf8(self) -> bool:
        """Whether something in it can only be written with SMTPUTF8 (RFC 6531)."""


def unfit(message: Message, offers: Callable[[str], bool]) -> Outcome | None:
    """Find what makes it useless to offer this message to a server that `offers` certain extensions.

    An outcome speaks of message and server, and says `RETRY`. Raises InvalidAddress for a recipient that is
    not one address, or that cannot be told to this server: another server might take it, so nobody refused
    anything. Raises ConfigurationError for such a sender.
    """
    if not _PATH.fullmatch(message.recipient):
        raise InvalidAddress("the recipient is not exactly one address (RFC 5321 section 4.1.2)")
    if not _PATH.fullmatch(message.sender):
        raise ConfigurationError("the sender is not exactly one address; mend the campaign's 'from'")
    if _needs_smtputf8(message) and not offers("smtputf8"):
        if not message.recipient.isascii():
            raise InvalidAddress(
                "the recipient's address needs SMTPUTF8 (RFC 6531), which the SMTP server does not offer"
            )
        return no_answer(Phase.MAIL, "the message needs SMTPUTF8, which the server does not offer")
    if not message.content.isascii() and not offers("8bitmime"):
        return no_answer(Phase.MAIL, "the message is 8-bit, and the server does not offer 8BITMIME")
    return None


def envelope(message: Message, offers: Callable[[str], bool]) -> list[tuple[Phase, bytes]]:
    """Give the commands that lead up to the body: one sender, one recipient."""
    parameters = ""
    if offers("size"):
        parameters += f" SIZE={len(message.content)}"  # RFC 1870 section 5: counted before dot-stuffing
    if not message.content.isascii():
        parameters += " BODY=8BITMIME"
    if _needs_smtputf8(message):
        parameters += " SMTPUTF8"
    return [
        (Phase.MAIL, f"MAIL FROM:<{message.sender}>{parameters}\r\n".encode()),
        (Phase.RCPT, f"RCPT TO:<{message.recipient}>\r\n".encode()),
        (Phase.DATA, b"DATA\r\n"),
    ]


def dot_stuffed(content: bytes) -> bytes:
    """Give the content as it goes over the wire, ending in CRLF, without the end-of-data indicator.

    Line ends are made CRLF first: a bare CR or LF around a dot ends the data for some servers and not for
    others, which lets one message smuggle in a second one (RFC 5321 sections 2.3.8 and 4.5.2).
    """
    if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        content = _LINE_END.sub(b"\r\n", content)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..")


def _needs_smtputf8(message: Message) -> bool:
    return message.needs_smtputf8 or not (message.sender + message.recipient).isascii()
