"""What stands on the wire: no message can end early, hold a second one, or add a command."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict
from lifecycle_emails.delivery.wire import END_OF_DATA, dot_stuffed, envelope, unfit
from lifecycle_emails.errors import ConfigurationError, InvalidAddress

EVERYTHING = {"size", "8bitmime", "smtputf8", "pipelining"}


@dataclass(frozen=True)
class Mail:
    sender: str = "team@example.com"
    recipient: str = "jane@example.com"
    content: bytes = b"Subject: x\r\n\r\nhello\r\n"
    needs_smtputf8: bool = False


def offers(*extensions: str) -> Callable[[str], bool]:
    return set(extensions).__contains__


@pytest.mark.parametrize(
    ("content", "stuffed"),
    [
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb", b"a\r\nb\r\n"),
        (b"", b"\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.b\r\n..c\r\n", b"a\r\n..b\r\n...c\r\n"),
        (b"a\n.\nb\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n"),
        (b"a\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.\nb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.\rb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\r\r\n.\r\nb\r\n", b"a\r\n\r\n..\r\nb\r\n"),
        (b"a\r", b"a\r\n"),
        (b"a\n", b"a\r\n"),
        (b"a\n\r", b"a\r\n\r\n"),
    ],
)
def test_dot_stuffed_makes_line_ends_crlf_and_doubles_leading_dots(content: bytes, stuffed: bytes) -> None:
    assert dot_stuffed(content) == stuffed


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\x00", b"\xff"]), max_size=30).map(
        b"".join
    )
)
@example(b"\n.\n")
@example(b"\r\n.\r")
def test_dot_stuffed_holds_no_end_of_data_and_loses_nothing(content: bytes) -> None:
    stuffed = dot_stuffed(content)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", stuffed)
    assert b"\r\n.\r\n" not in b"\r\n" + stuffed
    assert (b"\r\n" + stuffed + END_OF_DATA).count(b"\r\n.\r\n") == 1
    received = re.sub(rb"(?m)^\.", b"", stuffed)
    assert received.replace(b"\r\n", b"") == re.sub(rb"[\r\n]", b"", content)


def test_envelope_names_one_sender_and_one_recipient() -> None:
    assert envelope(Mail(), offers()) == [
        (Phase.MAIL, b"MAIL FROM:<team@example.com>\r\n"),
        (Phase.RCPT, b"RCPT TO:<jane@example.com>\r\n"),
        (Phase.DATA, b"DATA\r\n"),
    ]


@pytest.mark.parametrize(
    ("mail", "offered", "parameters"),
    [
        (Mail(), EVERYTHING, b" SIZE=21"),
        (Mail(content=b".\r\n.\r\n"), {"size"}, b" SIZE=6"),
        (Mail(content="é\r\n".encode()), {"8bitmime"}, b" BODY=8BITMIME"),
        (Mail(needs_smtputf8=True), {"smtputf8"}, b" SMTPUTF8"),
        (Mail(recipient="jörg@example.com"), {"smtputf8"}, b" SMTPUTF8"),
    ],
)
def test_envelope_uses_the_extensions_offered_and_needed(
    mail: Mail, offered: set[str], parameters: bytes
) -> None:
    assert unfit(mail, offers(*offered)) is None
    assert envelope(mail, offers(*offered))[0][1] == b"MAIL FROM:<team@example.com>" + parameters + b"\r\n"


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "jane",
        "jane@",
        "@example.com",
        "a@example.com,b@example.com",
        "a@example.com;b@example.com",
        "Jane <jane@example.com>",
        "jane@example.com> SIZE=0",
        "jane@example.com>\r\nRCPT TO:<all@example.com",
        "jane@example.com\r\nDATA",
        "jane@example.com\n",
        "jane@example.com\x00",
        "ja ne@example.com",
        '"ja\r\nne"@example.com',
        '"jane"<x@example.com',
        "jane@example.com\x85",
        "a@b@example.com",
    ],
)
def test_recipient_that_is_not_one_address_is_never_put_into_a_command(recipient: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        unfit(Mail(recipient=recipient), offers(*EVERYTHING))
    assert "jane" not in str(caught.value)


@pytest.mark.parametrize("recipient", ['"a..b"@example.com', '"a b>c"@example.com', "o'hara+x@example.com"])
def test_recipient_with_unusual_characters_is_one_address(recipient: str) -> None:
    assert unfit(Mail(recipient=recipient), offers()) is None


def test_sender_that_is_not_one_address_is_the_campaigns_mistake() -> None:
    with pytest.raises(ConfigurationError, match="from"):
        unfit(Mail(sender="a@example.com, b@example.com"), offers())


def test_recipient_beyond_ascii_is_invalid_at_a_server_without_smtputf8() -> None:
    with pytest.raises(InvalidAddress, match="SMTPUTF8"):
        unfit(Mail(recipient="jörg@example.com", needs_smtputf8=True), offers("8bitmime"))


@pytest.mark.parametrize(
    ("mail", "lacking"),
    [(Mail(needs_smtputf8=True), "SMTPUTF8"), (Mail(content="é\r\n".encode()), "8BITMIME")],
)
def test_message_that_the_server_cannot_take_is_no_fault_of_the_recipient(mail: Mail, lacking: str) -> None:
    outcome = unfit(mail, offers())
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.phase, outcome.code) == (Verdict.RETRY, Phase.MAIL, None)
    assert lacking in outcome.reply
