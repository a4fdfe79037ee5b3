"""A session that is withdrawn, closed or misused, also from another thread."""

import threading

import pytest

from lifecycle_emails.delivery.reply import Outcome, Phase
from lifecycle_emails.delivery.smtp_session import ConnectionFailed, SmtpSession, SmtpSettings
from lifecycle_emails.errors import InvalidAddress
from tests.integration.smtp_session.dialogue import (
    IN_DOUBT,
    PATIENCE,
    RETRY,
    SENT,
    Mail,
    new_session,
    opened,
    send,
    settings_for,
    summary,
    wait_for_the_servers_move,
)
from tests.scripted_smtp_server import (
    Accept,
    BlackHole,
    Eof,
    Queued,
    Reply,
    ScriptedSmtpServer,
    Until,
)


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
