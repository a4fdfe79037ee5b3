"""What an SMTP server's reply means for one send, read by the phase in which it came.

The phase decides, never the kind of exception: before the final dot nothing was accepted, whatever happened
(RFC 5321 section 4.1.1.10); after it only the server knows, and silence is doubt, not failure.

This module is pure. It must not know sockets, the ledger or Airflow.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from lifecycle_emails.address import scrub_addresses

REPLY_LENGTH = 200
"""The most characters of a server's reply that an outcome keeps."""


class Phase(StrEnum):
    """Where in the dialogue something happened. Only `DOT` comes after the end-of-data indicator."""

    CONNECT = "connect"
    TLS = "tls"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"


class Verdict(StrEnum):
    """What the ledger may conclude."""

    SENT = "sent"
    """The server accepted the message."""
    REJECTED = "rejected"
    """Not accepted, with evidence about this recipient: no later attempt can do better."""
    RETRY = "retry"
    """Not accepted; about the sender, the provider or the network, not about the recipient."""
    SLOW_DOWN = "slow_down"
    """As `RETRY`, and the provider asks for fewer mails."""
    IN_DOUBT = "in_doubt"
    """The dot was written and no readable answer came: accepted or not, nobody here can know."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    `code` is the reply code (RFC 5321 section 4.2), None where no readable reply came. `enhanced` is the
    enhanced status code (RFC 3463) as the server wrote it. `reply` is the server's text or the network error,
    without addresses and at most `REPLY_LENGTH` characters long. `queue_id` is the server's own name for an
    accepted message, where its reply holds one.

    `Phase.BODY` on the outcome of a finished dialogue says that no dot was written at all.
    """

    verdict: Verdict
    phase: Phase
    code: int | None
    enhanced: str | None
    reply: str
    queue_id: str | None = None


# RFC 2034 section 4 puts the code in front of the text; qmail and IronPort write it as "#5.1.1" within it.
_ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})(?!\S)|#([245]\.\d{1,3}\.\d{1,3})\b")
_ENHANCED_IN_FRONT = re.compile(r"^[245]\.\d{1,3}\.\d{1,3}\s+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

# 5.1.7 and 5.1.8 speak of the *sender's* mailbox and system (RFC 3463 section 3.2). Postfix gives them at
# RCPT for a sender domain that does not resolve: taken as evidence, they would reject a whole cohort.
_ABOUT_RECIPIENT = re.compile(r"5\.1\.(?!0*[78]$)\d+|5\.2\.\d+")
_BARE_ABOUT_RECIPIENT = frozenset({550, 551, 553})

# Providers that take less mail a second: Exchange Online's "Server busy", Gmail's "unusual rate of mail", and
# the words of Amazon SES, Outlook.com, Postfix and Exim. A slower rate does not help against a spent quota,
# nor against greylisting, or where it is the recipient (4.1.x, 4.2.x) who gets too much from everybody.
_TOO_FAST_STATUS = frozenset({"4.7.28", "4.7.500"})
_TOO_FAST = re.compile(
    r"throttl|sending rate|rate.?(?:over)?limit|too (?:fast|quickly|much mail|many (?:messages|e?-?mails))",
    re.IGNORECASE,
)
_NOT_THE_RATE = re.compile(
    r"\bdaily\b|\bper day\b|\bquota\b|gr[ae]y-?list|\bthe (?:user|recipient)\b", re.IGNORECASE
)

_QUEUE_ID = r"([A-Za-z0-9][A-Za-z0-9._+/=-]{2,99})"
_QUEUE_IDS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bqueued as {_QUEUE_ID}",  # Postfix, Mailpit, SendGrid
        rf"\bInternalId={_QUEUE_ID}",  # Exchange
        rf"\bid={_QUEUE_ID}",  # Exim
        rf"^{_QUEUE_ID} message accepted for delivery",  # Sendmail, OpenSMTPD
        rf"^ok\s+\d{{9,11}}\s+{_QUEUE_ID}\s+-\s+gsmtp",  # Google
        rf"\bqueued \({_QUEUE_ID}\)",  # Haraka
        rf"^ok:?\s+{_QUEUE_ID}$",  # Amazon SES and others: "Ok <id>", "Ok: <id>"
    )
)


def classify(
    phase: Phase, code: int, text: bytes | str, *, ambiguous_after_dot: Verdict = Verdict.IN_DOUBT
) -> Outcome:
    """Read one reply of the server.

    `code` is the reply code, or -1 where it could not be read (as smtplib has it); `text` is the reply's text
    without the codes, lines separated by a line feed. `ambiguous_after_dot` is the verdict on replies to the
    dot that a proxy may have made up while the server behind it accepted: a bare 421, and 4xx with x.4.x
    (RFC 3463 section 3.5, network and routing). A positive reply before the dot accepts nothing: `RETRY`.
    """
    lines = _decode(text).strip().split("\n")
    line = _one_line(lines)
    if not 200 <= code <= 599:
        return Outcome(_without_answer(phase), phase, None, None, _presentable(line))
    enhanced = _enhanced_code(lines[0])
    verdict = (
        _after_dot(code, enhanced, line, ambiguous_after_dot)
        if phase is Phase.DOT
        else _before_dot(phase, code, enhanced, line)
    )
    queue_id = _queue_id(line) if verdict is Verdict.SENT else None
    return Outcome(verdict, phase, code, enhanced, _presentable(line), queue_id)


def no_answer(phase: Phase, error: BaseException | str) -> Outcome:
    """Describe a phase that ended without a reply: connection lost, time-out, or a reason of our own."""
    description = error if isinstance(error, str) else _describe(error)
    return Outcome(_without_answer(phase), phase, None, None, _presentable(_one_line([description])))


def _without_answer(phase: Phase) -> Verdict:
    return Verdict.IN_DOUBT if phase is Phase.DOT else Verdict.RETRY


def _before_dot(phase: Phase, code: int, enhanced: str | None, line: str) -> Verdict:
    if _asks_to_slow_down(code, enhanced, line):
        return Verdict.SLOW_DOWN
    if phase is Phase.RCPT and (
        _names_recipient(code, enhanced) or (enhanced is None and code in _BARE_ABOUT_RECIPIENT)
    ):
        return Verdict.REJECTED
    return Verdict.RETRY


def _after_dot(code: int, enhanced: str | None, line: str, ambiguous: Verdict) -> Verdict:
    if 200 <= code <= 299:
        return Verdict.SENT
    if 500 <= code <= 599:
        # A bare 550 here mostly speaks of the message's content, so only an enhanced code is evidence.
        return Verdict.REJECTED if _names_recipient(code, enhanced) else Verdict.RETRY
    if 400 <= code <= 499:
        temporary = enhanced is not None and enhanced.startswith("4.")
        if (enhanced is not None and enhanced.startswith("4.4.")) or (code == 421 and not temporary):
            return ambiguous
        return Verdict.SLOW_DOWN if _asks_to_slow_down(code, enhanced, line) else Verdict.RETRY
    return Verdict.IN_DOUBT  # 3xx answers no dot: the two sides are out of step


def _asks_to_slow_down(code: int, enhanced: str | None, line: str) -> bool:
    if not 400 <= code <= 499:
        return False
    status = enhanced or ""
    if status in _TOO_FAST_STATUS or (code == 421 and status.startswith("4.7.")):
        return True
    about_recipient = status.startswith(("4.1.", "4.2."))
    return bool(_TOO_FAST.search(line)) and not about_recipient and not _NOT_THE_RATE.search(line)


def _names_recipient(code: int, enhanced: str | None) -> bool:
    return code >= 500 and enhanced is not None and _ABOUT_RECIPIENT.fullmatch(enhanced) is not None


def _decode(text: bytes | str) -> str:
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return decoded.replace("\r", "\n")


def _enhanced_code(line: str) -> str | None:
    found = _ENHANCED.search(line)
    return (found.group(1) or found.group(2)) if found else None


def _one_line(lines: list[str]) -> str:
    # Every line of a reply repeats the enhanced code; once is enough.
    text = " ".join([lines[0], *(_ENHANCED_IN_FRONT.sub("", line) for line in lines[1:])])
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def _queue_id(text: str) -> str | None:
    text = _ENHANCED_IN_FRONT.sub("", text)
    for pattern in _QUEUE_IDS:
        found = pattern.search(text)
        # What goes on with an @ is an address or a Message-ID, not a queue id.
        if found and not text[found.end() :].startswith("@"):
            return found.group(1)
    return None


def _presentable(text: str) -> str:
    scrubbed = scrub_addresses(text)  # before cutting, which could leave half an address
    return scrubbed if len(scrubbed) <= REPLY_LENGTH else scrubbed[: REPLY_LENGTH - 1] + "…"


def _describe(error: BaseException) -> str:
    # smtplib wraps the socket's error in one of its own that says less.
    cause = error.__cause__ or error.__context__
    text = str(error) or type(error).__name__
    return f"{text} ({cause})" if isinstance(cause, OSError) and str(cause) not in text else text
