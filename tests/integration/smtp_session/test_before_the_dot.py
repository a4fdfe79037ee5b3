"""Dialogues up to the dot, with a server that works, refuses or fails: nothing is accepted."""

import re
import threading

import pytest

from lifecycle_emails.delivery.reply import Phase, Verdict
from tests.integration.smtp_session.dialogue import (
    COMMAND_IMPATIENCE,
    PATIENCE,
    REJECTED,
    RETRY,
    SENT,
    SLOW_DOWN,
    Mail,
    opened,
    send,
    summary,
    wait_for_the_servers_move,
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
