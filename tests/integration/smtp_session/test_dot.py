"""The answer to the dot, whole, late, broken or missing."""

import threading
import time

import pytest

from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict
from tests.integration.smtp_session.dialogue import (
    COMMAND_IMPATIENCE,
    IMPATIENCE,
    IN_DOUBT,
    PATIENCE,
    REJECTED,
    RETRY,
    SENT,
    SLOW_DOWN,
    Mail,
    opened,
    send,
    summary,
)
from tests.scripted_smtp_server import (
    Accept,
    BlackHole,
    Bytewise,
    Eof,
    Queued,
    Raw,
    Reply,
    Reset,
    ScriptedSmtpServer,
    Step,
    Until,
)


@pytest.mark.parametrize(
    ("steps", "verdict", "code", "stays_open"),
    [
        ([Accept(), Queued()], SENT, 250, True),
        ([Accept(), Reply(250)], SENT, 250, True),
        ([Accept(), Reply(250, "2.0.0 many", "2.0.0 lines")], SENT, 250, True),
        ([Accept(), Raw(b"250\r\n")], SENT, 250, True),
        ([Accept(), Raw(b"250 Ok\n")], SENT, 250, True),
        ([Accept(), Bytewise(b"250-2.0.0 Ok\r\n250 2.0.0 queued\r\n", 0.001)], SENT, 250, True),
        ([Reply(554, "5.7.1 spam")], RETRY, 554, True),
        ([Reply(550, "no")], RETRY, 550, True),
        ([Reply(550, "5.1.1 no such user")], REJECTED, 550, True),
        ([Reply(451, "4.3.0 later")], RETRY, 451, True),
        ([Reply(421, "4.3.2 shutting down"), Eof()], RETRY, 421, False),
        ([Reply(421, "4.7.0 too fast"), Eof()], SLOW_DOWN, 421, False),
        ([Reply(421, "closing"), Eof()], IN_DOUBT, 421, False),
        ([Accept(), Reply(421, "4.4.2 time-out"), Eof()], IN_DOUBT, 421, False),
        ([Accept(), Reply(451, "4.4.1 proxy's time-out")], IN_DOUBT, 451, False),
        ([Reply(354, "go on")], IN_DOUBT, 354, False),
        ([Eof()], IN_DOUBT, None, False),
        ([Reset()], IN_DOUBT, None, False),
        ([Accept(), Eof()], IN_DOUBT, None, False),
        ([Accept(), Reset()], IN_DOUBT, None, False),
        ([Accept(), Raw(b"25"), Eof()], IN_DOUBT, None, False),
        ([Accept(), Raw(b"250-Ok\r\n"), Eof()], IN_DOUBT, None, False),
        ([Accept(), Raw(b"250-Ok\r\n550 no\r\n")], IN_DOUBT, None, False),
        ([Raw(b"550-no\r\n250 Ok\r\n")], IN_DOUBT, None, False),
        ([Accept(), Raw(b"\x00\xff garbage\r\n")], IN_DOUBT, None, False),
        ([Accept(), Raw(b"OK 250\r\n")], IN_DOUBT, None, False),
        ([Accept(), Raw(b"\r\n")], IN_DOUBT, None, False),
        ([Accept(), Raw(b"250 " + b"x" * 9000 + b"\r\n")], IN_DOUBT, None, False),
        ([Accept(), Raw(b"250-on and on\r\n" * 6000)], IN_DOUBT, None, False),
    ],
)
def test_answer_to_the_dot(
    server: ScriptedSmtpServer, steps: list[Step], verdict: Verdict, code: int | None, stays_open: bool
) -> None:
    server.on("dot", *steps, times=1)
    with opened(server) as session:
        outcome = send(session)
        assert summary(outcome) == (verdict, Phase.DOT, code)
        assert session.is_open is stays_open
        assert len(server.accepted) == (1 if Accept() in steps else 0)
        assert send(session).verdict is SENT
    assert len(server.dialogues) == (1 if stays_open else 2)


@pytest.mark.parametrize("steps", [[BlackHole()], [Accept(), BlackHole()]])
def test_silence_after_the_dot_is_in_doubt_after_the_dot_timeout(
    server: ScriptedSmtpServer, steps: list[Step]
) -> None:
    server.on("dot", *steps)
    with opened(server, dot_timeout=IMPATIENCE) as session:
        started = time.monotonic()
        assert summary(send(session)) == (IN_DOUBT, Phase.DOT, None)
        assert IMPATIENCE <= time.monotonic() - started < PATIENCE
        assert not session.is_open


def test_answer_that_trickles_does_not_outlast_the_dot_timeout(server: ScriptedSmtpServer) -> None:
    server.on("dot", Accept(), Bytewise(b"250 " + b"x" * 4000 + b"\r\n", IMPATIENCE / 8))
    with opened(server, dot_timeout=IMPATIENCE * 2) as session:
        started = time.monotonic()
        assert summary(send(session)) == (IN_DOUBT, Phase.DOT, None)
        assert time.monotonic() - started < PATIENCE


def test_late_answer_within_the_dot_timeout_is_sent(server: ScriptedSmtpServer) -> None:
    answer = threading.Event()
    server.on("dot", Accept(), Until(answer), Queued())
    with opened(server, command_timeout=COMMAND_IMPATIENCE) as session:
        assert session.offer(Mail()) is None
        outcomes: list[Outcome] = []
        lane = threading.Thread(target=lambda: outcomes.append(session.finish()))
        lane.start()
        lane.join(COMMAND_IMPATIENCE * 1.5)
        assert lane.is_alive(), "the command's time limit was taken for the dot's"
        answer.set()
        lane.join(PATIENCE)
        assert [outcome.verdict for outcome in outcomes] == [SENT]


@pytest.mark.parametrize("steps", [[Reply(421, "closing"), Eof()], [Reply(451, "4.4.2 time-out")]])
def test_ambiguous_answer_follows_the_connections_setting(
    server: ScriptedSmtpServer, steps: list[Step]
) -> None:
    server.on("dot", *steps)
    with opened(server, ambiguous_after_dot=RETRY) as session:
        assert send(session).verdict is RETRY


def test_surplus_reply_is_never_taken_for_the_answer_to_the_next_dot(server: ScriptedSmtpServer) -> None:
    server.on("dot", Accept(), Raw(b"250 Ok\r\n250 surplus\r\n"), times=1)
    server.on("dot", Reply(554, "5.7.1 refused"), times=1)
    with opened(server) as session:
        assert send(session).verdict is SENT
        assert summary(send(session)) == (RETRY, Phase.MAIL, 250)
        assert not session.is_open
    assert len(server.accepted) == 1


def test_reply_of_the_server_loses_addresses(server: ScriptedSmtpServer) -> None:
    server.on("rcpt", Reply(550, "5.1.1 <jane@example.com>: user unknown"))
    with opened(server) as session:
        outcome = session.offer(Mail())
    assert outcome is not None
    assert outcome.reply == "5.1.1 <address>: user unknown"
