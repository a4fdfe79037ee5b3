"""Whole dialogues with a real server on loopback that misbehaves at every phase, on purpose."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict
from lifecycle_emails.delivery.smtp_session import ConnectionFailed, SmtpSession, SmtpSettings
from lifecycle_emails.errors import InvalidAddress
from tests.looped_session import LoopedSession
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

SENT, REJECTED, RETRY = Verdict.SENT, Verdict.REJECTED, Verdict.RETRY
SLOW_DOWN, IN_DOUBT = Verdict.SLOW_DOWN, Verdict.IN_DOUBT

PATIENCE = 10.0
IMPATIENCE = 0.2
COMMAND_IMPATIENCE = 1.0
"""Not less: a busy machine must get through the commands before the one that hangs."""


@dataclass(frozen=True)
class Mail:
    recipient: str = "jane@example.com"
    content: bytes = (
        b"Subject: Day four\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
        b"Hello\r\n.\r\n..two\r\nReference: day4_follow_up/42\r\n"
    )
    sender: str = "team@example.com"
    needs_smtputf8: bool = False


def settings_for(server: ScriptedSmtpServer, **changes: Any) -> SmtpSettings:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "connect_timeout": PATIENCE,
        "command_timeout": PATIENCE,
        "dot_timeout": PATIENCE,
        "local_hostname": "client.example.com",
    }
    return SmtpSettings(**(settings | changes))


_sessions: list[LoopedSession] = []
_looped = False


@pytest.fixture(params=["thread", "lane"], autouse=True)
def way_of_waiting(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have every dialogue by a thread that blocks, and by a lane of a loop."""
    global _looped  # noqa: PLW0603  (for `new_session`, which tests call wherever they are)
    _looped = request.param == "lane"
    yield
    while _sessions:
        session = _sessions.pop()
        session.withdraw()
        session.loop.close()


def new_session(settings: SmtpSettings) -> SmtpSession:
    """Make a session that waits as this run of the test has it."""
    if not _looped:
        return SmtpSession(settings)
    _sessions.append(LoopedSession(settings))
    return _sessions[-1]


@contextmanager
def opened(server: ScriptedSmtpServer, **changes: Any) -> Iterator[SmtpSession]:
    session = new_session(settings_for(server, **changes))
    session.open()
    try:
        yield session
    finally:
        session.close()


@pytest.fixture(params=["pipelining", "one by one"])
def server(request: pytest.FixtureRequest) -> Iterator[ScriptedSmtpServer]:
    """Give a server that offers PIPELINING, and one that does not."""
    extensions = ["8BITMIME", "SIZE 10485760", "ENHANCEDSTATUSCODES"]
    if request.param == "pipelining":
        extensions.append("PIPELINING")
    with ScriptedSmtpServer(extensions=extensions) as server:
        yield server


@pytest.fixture
def pipelining_server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as server:
        yield server


def send(session: SmtpSession, mail: Mail | None = None) -> Outcome:
    """Offer and finish, as after a gate that says yes."""
    if not session.is_open:
        session.open()
    return session.offer(mail or Mail()) or session.finish()


def wait_for_the_servers_move(session: SmtpSession) -> None:
    """Wait until the server's unasked reply, or its end of the connection, has reached this machine."""
    connection = session._connection
    assert connection is not None
    assert connection._smtp is not None
    sock = connection._smtp.sock
    assert sock is not None
    sock.settimeout(PATIENCE)
    with suppress(ConnectionResetError):
        socket.socket.recv(sock, 1, socket.MSG_PEEK)


def summary(outcome: Outcome | None) -> tuple[Verdict, Phase, int | None]:
    assert outcome is not None
    return outcome.verdict, outcome.phase, outcome.code


# A server that does its work


def test_session_sends_one_message_whole_and_keeps_the_queue_id(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        outcome = send(session)
    [accepted] = server.accepted
    assert summary(outcome) == (SENT, Phase.DOT, 250)
    assert outcome.queue_id == accepted.queue_id
    assert (accepted.sender, accepted.recipients) == ("team@example.com", ("jane@example.com",))
    assert accepted.content == Mail().content
    assert accepted.reference == ("day4_follow_up", "42")


def test_nothing_is_accepted_before_the_dot(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        assert session.offer(Mail()) is None
        server.wait_until("body")
        assert server.accepted == []
        assert session.finish().verdict is SENT
    assert len(server.accepted) == 1


def test_session_sends_many_messages_over_one_connection(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        outcomes = [send(session, Mail(f"user{number}@example.com")) for number in range(20)]
    assert [outcome.verdict for outcome in outcomes] == [SENT] * 20
    assert [message.recipients for message in server.accepted] == [
        (f"user{number}@example.com",) for number in range(20)
    ]
    assert len(server.dialogues) == 1
    assert "RSET" not in server.dialogues[0].verbs


def test_pipelining_takes_one_write_for_the_envelope(pipelining_server: ScriptedSmtpServer) -> None:
    # The server answers MAIL only after it has seen DATA: without pipelining nobody would go on.
    seen_data = threading.Event()
    pipelining_server.on("mail", Until(seen_data), Reply(250, "2.1.0 Ok"))
    with opened(pipelining_server) as session:
        watcher = threading.Thread(
            target=_set_when_received, args=(pipelining_server, b"DATA\r\n", seen_data)
        )
        watcher.start()
        assert send(session).verdict is SENT
        watcher.join()


def _set_when_received(server: ScriptedSmtpServer, data: bytes, event: threading.Event) -> None:
    server.wait_until("mail")
    if data in bytes(server.dialogues[0].received):
        event.set()


def test_message_goes_out_dot_stuffed_with_crlf_only_and_ends_once(server: ScriptedSmtpServer) -> None:
    content = b"Subject: x\n\n.\n.hidden\r.\r\nMAIL FROM:<evil@example.com>\n.\r\n\r.\r\nlast"
    with opened(server) as session:
        assert send(session, Mail(content=content)).verdict is SENT
    [accepted] = server.accepted
    assert accepted.content == re.sub(rb"\r\n|\r|\n", b"\r\n", content) + b"\r\n"
    received = bytes(server.dialogues[0].received)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", received)
    assert received.count(b"\r\n.\r\n") == 1
    assert server.dialogues[0].verbs.count("MAIL") == 1


def test_extensions_are_used_only_where_offered(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        send(session, Mail(content="é\r\n".encode()))
    assert "MAIL FROM:<team@example.com> SIZE=4 BODY=8BITMIME" in server.dialogues[0].commands


def test_server_that_knows_only_helo_is_used_without_extensions(server: ScriptedSmtpServer) -> None:
    server.on("ehlo", Reply(502, "what?"))
    with opened(server) as session:
        assert send(session).verdict is SENT
    assert "MAIL FROM:<team@example.com>" in server.dialogues[0].commands


# Refusals and failures before the dot


COMMANDS = [("mail", Phase.MAIL), ("rcpt", Phase.RCPT), ("data", Phase.DATA)]


@pytest.mark.parametrize(("phase", "expected"), COMMANDS)
@pytest.mark.parametrize("reply", [Reply(451, "4.3.0 later"), Reply(554, "5.7.1 policy"), Reply(452, "full")])
def test_refusal_before_the_dot_leaves_the_session_usable(
    server: ScriptedSmtpServer, phase: str, expected: Phase, reply: Reply
) -> None:
    server.on(phase, reply, times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (RETRY, expected, reply.code)
        assert session.is_open
        assert server.accepted == []
        assert send(session, Mail("next@example.com")).verdict is SENT
    [accepted] = server.accepted
    assert accepted.recipients == ("next@example.com",)
    assert len(server.dialogues) == 1
    assert "RSET" in server.dialogues[0].verbs


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (Reply(550, "5.1.1 no such user"), REJECTED),
        (Reply(550, "no such user"), REJECTED),
        (Reply(550, "5.1.1 no such", "5.1.1 user"), REJECTED),
        (Reply(550, "5.7.1 relaying denied"), RETRY),
        (Reply(450, "4.2.0 greylisted"), RETRY),
    ],
)
def test_refused_recipient_does_not_touch_the_next_one(
    server: ScriptedSmtpServer, reply: Reply, verdict: Verdict
) -> None:
    server.on("rcpt", reply, when=lambda line: "bob" in line)
    with opened(server) as session:
        assert send(session, Mail("ann@example.com")).verdict is SENT
        assert summary(send(session, Mail("bob@example.com"))) == (verdict, Phase.RCPT, reply.code)
        assert send(session, Mail("cid@example.com")).verdict is SENT
    assert [message.recipients for message in server.accepted] == [("ann@example.com",), ("cid@example.com",)]
    assert len(server.dialogues) == 1


@pytest.mark.parametrize(("phase", "expected"), COMMANDS)
@pytest.mark.parametrize(
    ("steps", "verdict", "code"),
    [
        ([Eof()], RETRY, None),
        ([Reset()], RETRY, None),
        ([Raw(b"\xff\xfe\x00garbage\r\n")], RETRY, None),
        ([Raw(b"\r\n")], RETRY, None),
        ([Raw(b"25"), Eof()], RETRY, None),
        ([Raw(b"250-first line\r\n"), Reset()], RETRY, None),
        ([Raw(b"250-one\r\n550 two\r\n")], RETRY, None),
        ([Raw(b"250 " + b"x" * 9000 + b"\r\n")], RETRY, None),
        ([Raw(b"199 odd\r\n")], RETRY, None),
        ([Reply(421, "closing"), Eof()], RETRY, 421),
        ([Reply(421, "4.7.0 too fast"), Eof()], SLOW_DOWN, 421),
    ],
)
def test_connection_lost_before_the_dot_is_retried_on_a_new_one(
    server: ScriptedSmtpServer,
    phase: str,
    expected: Phase,
    steps: list[Step],
    verdict: Verdict,
    code: int | None,
) -> None:
    server.on(phase, *steps, times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (verdict, expected, code)
        assert not session.is_open
        assert server.accepted == []
        assert send(session).verdict is SENT
    assert len(server.accepted) == 1
    assert len(server.dialogues) == 2


@pytest.mark.parametrize(("phase", "expected"), COMMANDS)
def test_split_reply_before_the_dot_is_read_whole(
    server: ScriptedSmtpServer, phase: str, expected: Phase
) -> None:
    code = b"354" if phase == "data" else b"250"
    server.on(phase, Raw(code), Bytewise(b"-first\r\n" + code + b" second\r\n", 0.001), times=1)
    with opened(server) as session:
        # The scripted server reads the code it continues with from the first piece.
        assert send(session).verdict is SENT


@pytest.mark.parametrize(("phase", "expected"), COMMANDS)
def test_silence_before_the_dot_ends_with_the_command_timeout(
    server: ScriptedSmtpServer, phase: str, expected: Phase
) -> None:
    server.on(phase, BlackHole())
    with opened(server, command_timeout=COMMAND_IMPATIENCE) as session:
        assert summary(session.offer(Mail())) == (RETRY, expected, None)
        assert not session.is_open


@pytest.mark.parametrize("code", [250, 334, 355])
def test_anything_but_354_to_data_gets_no_body(server: ScriptedSmtpServer, code: int) -> None:
    server.on("data", Reply(code, "odd"), times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (RETRY, Phase.DATA, code)
        assert not session.is_open
        assert server.dialogues[0].ended.wait(PATIENCE)
        assert bytes(server.dialogues[0].received).endswith(b"DATA\r\n")


def test_without_pipelining_a_refusal_is_the_last_thing_said(server: ScriptedSmtpServer) -> None:
    server.extensions.clear()
    server.on("mail", Reply(451, "4.3.0 later"), times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (RETRY, Phase.MAIL, 451)
        assert send(session).verdict is SENT
    assert server.dialogues[0].verbs == ["EHLO", "MAIL", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]


def test_refused_recipient_with_data_accepted_all_the_same_ends_without_a_dot(
    pipelining_server: ScriptedSmtpServer,
) -> None:
    server = pipelining_server
    server.on("rcpt", Reply(550, "5.1.1 no such user"), times=1)
    server.on("data", Reply(354, "go on"), times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (REJECTED, Phase.RCPT, 550)
        assert not session.is_open
        assert server.dialogues[0].ended.wait(PATIENCE)
        assert bytes(server.dialogues[0].received).endswith(b"DATA\r\n")
        assert send(session).verdict is SENT
    assert len(server.accepted) == 1


def test_refused_sender_counts_before_what_follows_in_the_pipeline(
    pipelining_server: ScriptedSmtpServer,
) -> None:
    server = pipelining_server
    server.on("mail", Reply(451, "4.1.8 sender's domain does not resolve"), times=1)
    server.on("rcpt", Reply(550, "5.1.1 no such user"), times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (RETRY, Phase.MAIL, 451)
        assert send(session).verdict is SENT


def test_connection_lost_behind_a_refusal_in_the_pipeline_keeps_the_refusal(
    pipelining_server: ScriptedSmtpServer,
) -> None:
    server = pipelining_server
    server.on("rcpt", Reply(550, "5.1.1 no such user"), Reset(), times=1)
    with opened(server) as session:
        assert summary(session.offer(Mail())) == (REJECTED, Phase.RCPT, 550)
        assert not session.is_open


def test_refused_reset_is_retried_later(server: ScriptedSmtpServer) -> None:
    server.on("rcpt", Reply(450, "4.2.0 later"), times=1)
    server.on("rset", Reply(451, "4.3.0 no"), times=1)
    with opened(server) as session:
        session.offer(Mail())
        assert summary(session.offer(Mail())) == (RETRY, Phase.MAIL, 451)
        assert server.accepted == []


@pytest.mark.parametrize("end", [[Reply(421, "4.4.2 idle"), Eof()], [Eof()], [Reset()]])
def test_idle_connection_closed_by_the_server_is_seen_on_reuse(
    server: ScriptedSmtpServer, end: list[Step]
) -> None:
    server.on("dot", Accept(), Queued(), *end, times=1)
    with opened(server) as session:
        first = send(session)
        second = session.offer(Mail())
        assert first.verdict is SENT
        assert second is not None
        assert (second.verdict, second.phase) == (RETRY, Phase.MAIL)
        assert not session.is_open
        assert send(session).verdict is SENT
    assert len(server.accepted) == 2


# The body


@pytest.mark.parametrize("after_bytes", [1, 60, 200_000])
@pytest.mark.parametrize("end", [[Eof()], [Reset()]])
def test_connection_lost_in_the_body_accepts_nothing(
    server: ScriptedSmtpServer, after_bytes: int, end: list[Step]
) -> None:
    server.on("body", *end, times=1, after_bytes=after_bytes)
    content = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20_000
    with opened(server) as session:
        outcome = session.offer(Mail(content=content))
        if outcome is None:  # all of it went into the kernel's buffers before the end could be seen
            wait_for_the_servers_move(session)
            outcome = session.finish()
        assert summary(outcome) == (RETRY, Phase.BODY, None)
        assert not session.is_open
    assert server.accepted == []


def test_silence_in_the_body_ends_with_the_command_timeout(server: ScriptedSmtpServer) -> None:
    server.on("body", BlackHole(), times=1)
    with opened(server, command_timeout=COMMAND_IMPATIENCE) as session:
        outcome = session.offer(Mail(content=b"0123456789\r\n" * 2_000_000))
        assert summary(outcome) == (RETRY, Phase.BODY, None)
        assert not session.is_open
    assert server.accepted == []


@pytest.mark.parametrize(
    ("steps", "verdict", "code"),
    [
        ([Reply(421, "4.7.0 too fast"), Eof()], SLOW_DOWN, 421),
        ([Reply(552, "5.3.4 too big"), Eof()], RETRY, 552),
        ([Reply(550, "5.1.1 late word about the recipient"), Eof()], RETRY, 550),
        ([Reply(250, "2.0.0 Ok: queued as unasked")], RETRY, 250),
        ([Raw(b"?"), Eof()], RETRY, None),
        ([Eof()], RETRY, None),
        ([Reset()], RETRY, None),
    ],
)
def test_server_that_speaks_or_leaves_before_the_dot_gets_no_dot(
    server: ScriptedSmtpServer, steps: list[Step], verdict: Verdict, code: int | None
) -> None:
    gate_is_open = threading.Event()
    server.on("body", Until(gate_is_open), *steps, times=1)
    with opened(server) as session:
        assert session.offer(Mail()) is None
        gate_is_open.set()
        wait_for_the_servers_move(session)
        outcome = session.finish()
        assert (outcome.verdict, outcome.phase) == (verdict, Phase.BODY)
        assert outcome.code == code
        assert not session.is_open
    assert server.dialogues[0].ended.wait(PATIENCE)
    assert b"\r\n.\r\n" not in server.dialogues[0].received
    assert server.accepted == []


# The dot


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


# Withdrawing and closing


def test_withdrawn_message_is_not_accepted_and_gets_no_dot(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        assert session.offer(Mail()) is None
        session.withdraw()
        assert not session.is_open
        assert server.dialogues[0].ended.wait(PATIENCE)
        assert b"\r\n.\r\n" not in server.dialogues[0].received
        assert server.accepted == []
        assert send(session).verdict is SENT
    assert len(server.accepted) == 1


def test_finish_after_withdraw_says_that_no_dot_was_written(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        assert session.offer(Mail()) is None
        session.withdraw()
        assert summary(session.finish()) == (RETRY, Phase.BODY, None)
    assert server.accepted == []


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("mail", Phase.MAIL), ("rcpt", Phase.RCPT), ("data", Phase.DATA), ("dot", Phase.DOT)],
)
def test_withdraw_from_another_thread_ends_the_wait(
    server: ScriptedSmtpServer, phase: str, expected: Phase
) -> None:
    server.on(phase, BlackHole())
    session = new_session(settings_for(server, command_timeout=600, dot_timeout=600))
    session.open()
    outcomes: list[Outcome] = []
    lane = threading.Thread(target=lambda: outcomes.append(send(session)))
    lane.start()
    server.wait_until(phase)
    session.withdraw()
    lane.join(PATIENCE)
    assert not lane.is_alive()
    assert [(outcome.verdict, outcome.phase) for outcome in outcomes] == [
        (IN_DOUBT if phase == "dot" else RETRY, expected)
    ]
    assert not session.is_open
    assert session._connection is None, "the socket must be freed by the thread that used it"


def test_withdraw_from_another_thread_ends_a_stuck_body(server: ScriptedSmtpServer) -> None:
    server.on("body", BlackHole())
    session = new_session(settings_for(server, command_timeout=600))
    session.open()
    outcomes: list[Outcome | None] = []
    mail = Mail(content=b"0123456789\r\n" * 2_000_000)
    lane = threading.Thread(target=lambda: outcomes.append(session.offer(mail)))
    lane.start()
    server.wait_until("body")
    session.withdraw()
    lane.join(PATIENCE)
    assert not lane.is_alive()
    assert [summary(outcome)[:2] for outcome in outcomes] == [(RETRY, Phase.BODY)]


def test_withdraw_frees_the_socket_once_the_method_that_uses_it_ends(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        with session._exclusive():
            session.withdraw()
            assert session._connection is not None
        assert session._connection is None


def test_offer_after_another_thread_withdrew_says_nothing(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        session.withdraw()
        assert summary(session.offer(Mail())) == (RETRY, Phase.MAIL, None)
    assert "MAIL" not in server.dialogues[0].verbs


def test_open_that_another_thread_withdraws_fails_and_leaves_nothing_open(server: ScriptedSmtpServer) -> None:
    go_on = threading.Event()
    server.on("ehlo", Until(go_on), Reply(250, "scripted.example.com"), times=1)
    session = new_session(settings_for(server))
    errors: list[ConnectionFailed] = []
    lane = threading.Thread(target=lambda: errors.append(_failure_to_open(session)))
    lane.start()
    server.wait_until("ehlo")
    session.withdraw()
    go_on.set()
    lane.join(PATIENCE)
    assert "withdrawn" in str(errors[0])
    assert not session.is_open
    session.open()
    assert send(session).verdict is SENT
    session.close()


def _failure_to_open(session: SmtpSession) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        session.open()
    return caught.value


def test_withdraw_and_close_of_a_session_never_opened_do_nothing() -> None:
    session = new_session(SmtpSettings("127.0.0.1", 1, security="none"))
    session.withdraw()
    session.close()
    assert not session.is_open


def test_close_parts_politely(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        send(session)
    assert server.dialogues[0].verbs[-1] == "QUIT"
    assert not session.is_open


def test_close_with_a_message_before_its_dot_says_nothing_more(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        assert session.offer(Mail()) is None
    assert server.dialogues[0].ended.wait(PATIENCE)
    received = bytes(server.dialogues[0].received)
    assert received.endswith(b"Reference: day4_follow_up/42\r\n")
    assert server.accepted == []


def test_close_does_not_wait_for_a_server_that_is_gone(server: ScriptedSmtpServer) -> None:
    server.on("dot", Accept(), Queued(), Eof())
    with opened(server) as session:
        send(session)
        wait_for_the_servers_move(session)


def test_finish_without_an_offer_is_a_mistake_of_the_caller(server: ScriptedSmtpServer) -> None:
    with opened(server) as session:
        with pytest.raises(RuntimeError, match="offer"):
            session.finish()
        send(session)
        with pytest.raises(RuntimeError, match="offer"):
            session.finish()


def test_offer_without_a_connection_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(RuntimeError, match="open"):
        new_session(SmtpSettings("127.0.0.1", 1, security="none")).offer(Mail())


@pytest.mark.parametrize(
    "recipient", ["jane@example.com>\r\nRCPT TO:<all@example.com", "a@x.org,b@x.org", "jane"]
)
def test_recipient_that_is_not_one_address_is_never_said(server: ScriptedSmtpServer, recipient: str) -> None:
    with opened(server) as session:
        with pytest.raises(InvalidAddress):
            session.offer(Mail(recipient))
        assert session.is_open
        assert send(session).verdict is SENT
    assert server.dialogues[0].verbs.count("MAIL") == 1


def test_recipient_beyond_ascii_needs_smtputf8(server: ScriptedSmtpServer) -> None:
    mail = Mail("jörg@example.com", needs_smtputf8=True)
    with opened(server) as session, pytest.raises(InvalidAddress, match="SMTPUTF8"):
        session.offer(mail)
    server.extensions.append("SMTPUTF8")
    with opened(server) as session:
        assert send(session, mail).verdict is SENT
    assert server.accepted[0].recipients == ("jörg@example.com",)


def test_exception_from_outside_leaves_no_connection_in_an_unknown_state(
    server: ScriptedSmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow's execution_timeout raises in the middle of whatever runs.
    with opened(server) as session:
        assert session.offer(Mail()) is None
        assert session._connection is not None
        monkeypatch.setattr(session._connection, "ask", _raise_keyboard_interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.finish()
        assert not session.is_open
        assert server.dialogues[0].ended.wait(PATIENCE)
    assert server.accepted == []


def _raise_keyboard_interrupt(*_: object) -> None:
    raise KeyboardInterrupt
