"""What a caught message says: its text parts, its headers for people, and whom it is for.

Campaign and user are read from the line ``Reference: <campaign>/<user_id>`` of the decoded body, never from
headers that the sender under test sets: this is what makes the catcher an independent judge of copies.
"""

import email
import html
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message

_REFERENCE = re.compile(r"^[ \t]*Reference:[ \t]*([^/\s]+)/(\S[^\r\n]*?)[ \t]*\r?$", re.MULTILINE)
_TAG = re.compile(r"<[^>]*>")
_BLOCK_END = re.compile(r"<(?:br|/p|/div|/td|/tr|/li)\b[^>]*>", re.IGNORECASE)


def parse(content: bytes) -> Message:
    """Parse a message as it came over the wire; nothing in it is an error."""
    return email.message_from_bytes(content)


def part(message: Message, kind: str) -> Message | None:
    """Find the first part of a content type such as text/html."""
    return next((found for found in message.walk() if found.get_content_type() == kind), None)


def part_text(found: Message) -> str:
    """Decode a part's transfer encoding and charset; what cannot be decoded becomes U+FFFD."""
    payload = found.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        return data.decode(found.get_content_charset("utf-8"), errors="replace")
    except LookupError:
        return data.decode("utf-8", errors="replace")


def header_text(message: Message, name: str) -> str:
    """Decode a header for people, on one line; as it stands where it cannot be decoded."""
    value = message.get(name, "")
    try:
        text = str(make_header(decode_header(value)))
    except (UnicodeError, LookupError, ValueError, HeaderParseError):
        text = str(value)
    return " ".join(text.split())


def reference(message: Message) -> tuple[str, str] | None:
    """Read (campaign, user id) from the body's last Reference line; None where there is none.

    The last, because a user's own text, which may try to look like one, stands above the footer.
    """
    for kind in ("text/plain", "text/html"):
        found = part(message, kind)
        if found is not None:
            text = part_text(found)
            if kind == "text/html":
                text = html.unescape(_TAG.sub("", _BLOCK_END.sub("\n", text)))
            lines = list(_REFERENCE.finditer(text))
            if lines:
                return lines[-1][1], lines[-1][2]
    return None
