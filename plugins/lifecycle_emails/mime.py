"""What a mail looks like on the wire: header lines and a multipart body, put together fast and by the book.

Building a message out of objects for each user costs as much as sending it. What is the same in every mail
of a batch is therefore laid out once by the standard library; only the user's header lines and encoded
texts are filled in. Must not know campaigns or templates.
"""

from __future__ import annotations

import re
import unicodedata
from binascii import b2a_qp
from collections.abc import Sequence
from dataclasses import dataclass
from email import policy
from email.charset import BASE64, Charset
from email.header import Header
from email.headerregistry import Address
from email.message import Message
from email.mime.multipart import MIMEMultipart
from functools import lru_cache

_LINE_OCTETS = 78  # RFC 5322 2.1.1: lines should be no longer
_MAX_LINE_OCTETS = 998  # RFC 5322 2.1.1: lines must be no longer
_PLAIN = re.compile(r"(?! )[ -~]*(?<! )")
# Lines of a header folded before single spaces (RFC 5322 2.2.3). Text with a word longer than a line does not
# match from end to end.
_FOLDED = re.compile(rf".{{1,{_LINE_OCTETS}}}(?<! )(?= [^ ]|$)")
# Base64 also where quoted-printable would be shorter: the standard library folds it in a tenth of the time.
_ENCODED_WORDS = Charset("utf-8")
_ENCODED_WORDS.header_encoding = BASE64
_VISIBLE = re.compile(r"[!-~]*")
_TEXT, _HTML = "text", "html"
# RFC 2045 6.7: quoted-printable text never holds "=_", so no user can write a boundary into a body.
_BOUNDARY = "=_lifecycle"


class UnfitForHeader(ValueError):
    """A text that cannot stand in a header; the message never repeats it."""


@dataclass(frozen=True)
class MimeSkeleton:
    """A multipart/alternative mail (RFC 2046 5.1.4) of text and HTML without what differs by user."""

    head: bytes
    between: bytes
    tail: bytes

    @classmethod
    def compile(cls, headers: Sequence[bytes]) -> MimeSkeleton:
        """Lay out the mail; ``headers`` are the whole lines that all mails have in common."""
        mail = MIMEMultipart("alternative", boundary=_BOUNDARY)
        for subtype, mark in (("plain", _TEXT), ("html", _HTML)):
            part = Message()
            part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
            part["Content-Transfer-Encoding"] = "quoted-printable"
            part.set_payload(f"<{mark}>")
            mail.attach(part)
        laid_out = mail.as_bytes(policy=policy.compat32.clone(linesep="\r\n"))
        before, rest = laid_out.split(f"<{_TEXT}>".encode())
        between, tail = rest.split(f"<{_HTML}>".encode())
        return cls(b"".join(headers) + before, between, tail)

    def fill(self, headers: Sequence[bytes], text: str, html: str) -> bytes:
        """Return the whole mail: lines end in CRLF and are at most 76 octets in the bodies.

        ``headers`` are the whole lines that only this mail has.
        """
        return b"".join(
            (*headers, self.head, _quoted_printable(text), self.between, _quoted_printable(html), self.tail)
        )


def header_line(name: str, value: str) -> bytes:
    """Return the whole line, or folded lines, of a header of free text (RFC 5322 2.2.1, RFC 2047).

    Raises UnfitForHeader for line breaks and other control characters.
    """
    if _PLAIN.fullmatch(value) and "=?" not in value:
        if len(name) + 2 + len(value) <= _LINE_OCTETS:
            return f"{name}: {value}\r\n".encode("ascii")
        lines = _FOLDED.findall(f"{name}: {value}")
        # Nothing but the name in the first line is legal, but Python's parser adds a space to such a value.
        if sum(map(len, lines)) == len(name) + 2 + len(value) and len(lines[0]) > len(name) + 1:
            return ("\r\n".join(lines) + "\r\n").encode("ascii")
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in value):
        raise UnfitForHeader("a line break or another control character")
    # email.header, not the newer email.policy: the latter's folding loses spaces between encoded words, and
    # decodes what looks like an encoded word in a user's name.
    folded = Header(value, _ENCODED_WORDS, header_name=name).encode(linesep="\r\n")
    return f"{name}: {folded}\r\n".encode("ascii")


def token_line(name: str, value: str) -> bytes:
    """Return the line of a header whose value is one unit, such as an address or an identifier.

    It is not encoded or folded, which would break it; UTF-8 in it needs SMTPUTF8 (RFC 6532 3.2). Raises
    UnfitForHeader for spaces, control characters, and a line longer than RFC 5322 2.1.1 allows.
    """
    if not _VISIBLE.fullmatch(value) and any(unicodedata.category(char)[0] in "CZ" for char in value):
        raise UnfitForHeader("a space, a line break or another control character")
    line = f"{name}: {value}\r\n".encode()
    if len(line) > _MAX_LINE_OCTETS:
        raise UnfitForHeader(f"more than {_MAX_LINE_OCTETS} octets")
    return line


def mailbox_line(name: str, mailbox: Address) -> bytes:
    """Return the lines of a header with one mailbox (RFC 5322 3.4), its address in ASCII."""
    if not mailbox.display_name.isascii():
        encoded = header_line(name, mailbox.display_name).decode("ascii").rstrip()
        return f"{encoded}\r\n <{mailbox.addr_spec}>\r\n".encode("ascii")
    return f"{name}: {mailbox}\r\n".encode("ascii")


def _quoted_printable(body: str) -> bytes:
    """Return ``body`` encoded (RFC 2045 6.7), every kind of line end in it as CRLF, and one at its end."""
    if "\r" in body:
        body = body.replace("\r\n", "\n").replace("\r", "\n")
    return b"".join(
        [
            _kept_line(line) if len(line) < _MAX_LINE_OCTETS else _encoded_line(line)
            for line in body.rstrip("\n").split("\n")
        ]
    )


def _encoded_line(line: str) -> bytes:
    return b2a_qp(f"{line}\r\n".encode("utf-8", "replace"), istext=True)


# Each line is encoded by itself, and most lines of a template are the same in every mail: encoding only what
# differs takes a tenth of the time. Long lines are not kept, so that this stays below 4 MiB.
_kept_line = lru_cache(maxsize=1024)(_encoded_line)
