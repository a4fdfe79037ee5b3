from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle_emails.mime import MimeSkeleton, UnfitForHeader, header_line, mailbox_line, token_line

# What users write, and what tries to be more than it is.
HOSTILE = st.lists(
    st.sampled_from([
        "Ann", "Zo\u00eb", "\u00df" * 40, "\u6771\u4eac\u90fd", "\U0001f600", "x" * 90, "=?utf-8?q?x?=", "=?", "?=", "=",
        '"q"', "(c)", "<b>", "a@example.com", ",", ";", ":", "\\", "{{ 7*7 }}", "\u202e", "\u00a0", "e\u0301", "  ",
    ])
)  # fmt: skip


def parsed(raw: bytes) -> EmailMessage:
    """The message as a mail program reads it."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    return message


def reference(text: str, html: str) -> EmailMessage:
    """The same mail, built by the standard library out of objects."""
    message = EmailMessage(policy=policy.SMTP)
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return parsed(message.as_bytes())


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def lines_of(raw: bytes) -> list[bytes]:
    assert raw.endswith(b"\r\n")
    lines = raw[:-2].split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    return lines


@given(st.lists(st.sampled_from(["a", "word", "x" * 40, " ", "-" * 9, "y" * 80]), max_size=30).map(" ".join))
@example("Ada 0123456789abcdef0123456789abcdef, three things worth trying this week")
def test_long_line_of_plain_text_is_folded_and_joined_again_the_same(value: str) -> None:
    value = value.strip()
    raw = header_line("Subject", value)
    assert parsed(raw + b"\r\n")["Subject"] == value
    assert max(map(len, lines_of(raw))) <= 78
    assert not any(line.endswith(b" ") for line in lines_of(raw)) or not value


@given(HOSTILE.map(" ".join) | st.text(max_size=200))
@example("a" * 200)
@example("a b " * 60)
@example("=?utf-8?q?x?= =?utf-8?q?y?=")
def test_header_line_is_read_as_it_was_written(value: str) -> None:
    value = value.strip()
    try:
        raw = header_line("Subject", value)
    except UnfitForHeader:
        assert not value.isprintable()
        return
    assert raw.isascii()
    lines = lines_of(raw)
    assert max(map(len, lines)) <= 78
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    assert parsed(raw + b"\r\n")["Subject"] == value


@pytest.mark.parametrize(
    "character", ["\r", "\n", "\t", "\x00", "\x7f", "\u0085", "\u2028", "\u2029", "\ud800"]
)
def test_header_line_takes_no_control_character(character: str) -> None:
    for value in (f"Ann{character}Bcc: bob@example.com", f"Zo\u00eb {character}", character):
        with pytest.raises(UnfitForHeader) as error:
            header_line("Subject", value)
        assert "Ann" not in str(error.value)


def test_header_line_of_plain_ascii_is_not_encoded() -> None:
    assert header_line("Subject", "Ann, your first days") == b"Subject: Ann, your first days\r\n"


@pytest.mark.parametrize(
    "value", ["a b", "a\r\nBcc: b", "a\n", "a\x00", "a\u00a0b", "a\u2028", "\u200b", "x" * 999]
)
def test_token_line_takes_one_short_visible_unit(value: str) -> None:
    with pytest.raises(UnfitForHeader):
        token_line("To", value)


def test_token_line_is_neither_encoded_nor_folded() -> None:
    address = "l" * 64 + "@" + "d" * 60 + ".example"
    assert token_line("To", address) == f"To: {address}\r\n".encode()
    assert token_line("To", "zo\u00eb@example.com") == "To: zo\u00eb@example.com\r\n".encode()


@pytest.mark.parametrize(
    "name",
    ["", "The team", "Lee, Ann", 'The "best" team', "Zo\u00eb & Co, \u6771\u4eac", "\u00fc" * 60, "a.b"],
)
def test_mailbox_line_is_read_as_name_and_address(name: str) -> None:
    raw = mailbox_line("From", Address(name, addr_spec="hello@example.com"))
    assert raw.isascii()
    assert max(map(len, lines_of(raw))) <= 78
    # By the older parser: the newer one leaves a space between adjacent encoded words (RFC 2047 6.2 says none).
    encoded, address = parseaddr(str(message_from_bytes(raw + b"\r\n")["From"]))
    assert (str(make_header(decode_header(encoded))), address) == (name, "hello@example.com")


@given(HOSTILE.map(" ".join) | st.text(max_size=400), HOSTILE.map("\n".join) | st.text(max_size=400))
@example("--=_lifecycle--", "--=_lifecycle\nContent-Type: text/plain\n\nx")
@example(".\n..\n.a\r\n.\r\n", "\rFrom x\n")
@example("trailing \n spaces\t\n", "x" * 2000)
@example("=3D= =", "=\r\n=")
def test_skeleton_filled_in_reads_like_the_library_s_own(text: str, html: str) -> None:
    raw = MimeSkeleton.compile([b"X-Common: a\r\n"]).fill([b"Subject: b\r\n"], text, html)
    message = parsed(raw)
    assert raw.isascii()
    assert max(map(len, lines_of(raw))) <= 78
    assert (message["Subject"], message["X-Common"], message["MIME-Version"]) == ("b", "a", "1.0")
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    for subtype, written in (("plain", text), ("html", html)):
        normal = written.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
        assert body(message, subtype) == normal
        if normal.replace("\n", "").isprintable():
            assert body(reference(text, html), subtype).rstrip("\n") == normal.rstrip("\n")


def test_skeleton_makes_nothing_of_half_a_surrogate_pair() -> None:
    assert body(parsed(MimeSkeleton.compile([]).fill([], "a\ud800b", "")), "plain") == "a?b\n"
