"""Opening a connection: TLS that is really checked, logins that never cross the network in clear."""

import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lifecycle_emails.delivery.reply import Phase, Verdict
from lifecycle_emails.delivery.smtp_connection import ConnectionFailed, SmtpConnection
from lifecycle_emails.delivery.smtp_session import SmtpSession
from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from lifecycle_emails.errors import DeliveryError
from tests.looped_session import LoopedSession
from tests.scripted_smtp_server import Accept, BlackHole, Eof, Raw, Reply, Reset, ScriptedSmtpServer, Step

PATIENCE = 10.0
IMPATIENCE = 1.0
"""Not less: a busy machine must get through the steps before the one that hangs."""
LOGIN = ("team@example.com", "correct horse")


@dataclass(frozen=True)
class Mail:
    recipient: str = "jane@example.com"
    content: bytes = b"Subject: x\r\n\r\nhello\r\n"
    sender: str = "team@example.com"
    needs_smtputf8: bool = False


@pytest.fixture
def server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer(login=LOGIN) as server:
        yield server


@pytest.fixture
def tls_server(server_tls: ssl.SSLContext) -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer(tls=server_tls, login=LOGIN) as server:
        yield server


def settings_for(server: ScriptedSmtpServer, **changes: Any) -> SmtpSettings:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "connect_timeout": PATIENCE,
        "command_timeout": PATIENCE,
        "local_hostname": "client.example.com",
    }
    return SmtpSettings(**(settings | changes))


def failure(settings: SmtpSettings) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        SmtpConnection(settings).drop()
    return caught.value


def test_starttls_secures_the_connection_before_anything_else_is_said(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    connection = SmtpConnection(settings_for(tls_server, tls_context=trusting))
    connection.quit()
    [dialogue] = tls_server.dialogues
    assert dialogue.verbs == ["EHLO", "STARTTLS", "EHLO", "QUIT"]
    assert dialogue.in_clear == ["ehlo client.example.com", "STARTTLS"]


def test_starttls_is_the_default_and_its_absence_an_error(server: ScriptedSmtpServer) -> None:
    error = failure(settings_for(server))
    assert error.outcome.phase is Phase.TLS
    assert "does not offer" in str(error)
    assert server.dialogues[0].verbs == ["EHLO"]


@pytest.mark.parametrize("reply", [Reply(454, "4.7.0 not now"), Reply(501, "no")])
def test_starttls_refused_is_an_error(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext, reply: Reply
) -> None:
    tls_server.on("starttls", reply)
    error = failure(settings_for(tls_server, tls_context=trusting))
    assert (error.outcome.phase, error.outcome.code) == (Phase.TLS, reply.code)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_certificate_that_the_system_does_not_know_is_refused(
    server_tls: ssl.SSLContext, security: str
) -> None:
    with ScriptedSmtpServer(tls=server_tls, implicit_tls=security == "tls", login=LOGIN) as server:
        error = failure(settings_for(server, security=security, username=LOGIN[0], password=LOGIN[1]))
        assert "certificate" in str(error).lower()
        assert "AUTH" not in server.dialogues[0].verbs


def test_certificate_for_another_host_is_refused(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    error = failure(settings_for(tls_server, host="localhost", tls_context=trusting))
    assert error.outcome.phase is Phase.TLS
    assert "localhost" in error.outcome.reply


def test_tls_from_the_first_byte(server_tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with ScriptedSmtpServer(tls=server_tls, implicit_tls=True) as server:
        SmtpConnection(settings_for(server, security="tls", tls_context=trusting)).quit()
        assert server.dialogues[0].in_clear == []
        assert server.dialogues[0].verbs == ["EHLO", "QUIT"]


def test_what_an_attacker_adds_to_the_starttls_reply_is_not_believed(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    injected = b"220 go ahead\r\n250-evil.example.com\r\n250 INJECTED\r\n"
    tls_server.on("starttls", Raw(injected))
    connection = SmtpConnection(settings_for(tls_server, tls_context=trusting))
    assert connection.offers("pipelining")
    assert not connection.offers("injected")
    connection.quit()


def test_login_happens_inside_tls(tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext) -> None:
    settings = settings_for(tls_server, username=LOGIN[0], password=LOGIN[1], tls_context=trusting)
    SmtpConnection(settings).quit()
    [dialogue] = tls_server.dialogues
    assert dialogue.verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", "QUIT"]
    assert not any("AUTH" in command for command in dialogue.in_clear)


@pytest.mark.parametrize("make_session", [SmtpSession, LoopedSession])
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_message_goes_through_tls(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext, security: str, make_session: type[SmtpSession]
) -> None:
    with ScriptedSmtpServer(tls=server_tls, implicit_tls=security == "tls") as server:
        session = make_session(settings_for(server, security=security, tls_context=trusting))
        session.open()
        verdicts = [(session.offer(Mail()) or session.finish()).verdict for _ in range(3)]
        session.close()
        if isinstance(session, LoopedSession):
            session.loop.close()
    assert verdicts == [Verdict.SENT] * 3
    assert [message.content for message in server.accepted] == [Mail.content] * 3
    assert len(server.dialogues) == 1
    assert not any(command.startswith("MAIL") for command in server.dialogues[0].in_clear)


@pytest.mark.parametrize("end", [[Reset()], [Eof()], [Accept(), Reset()]])
def test_connection_lost_after_the_dot_is_in_doubt_through_tls_too(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext, end: list[Step]
) -> None:
    tls_server.on("dot", *end)
    session = SmtpSession(settings_for(tls_server, tls_context=trusting))
    session.open()
    outcome = session.offer(Mail()) or session.finish()
    assert (outcome.verdict, outcome.phase) == (Verdict.IN_DOUBT, Phase.DOT)
    assert not session.is_open


def test_withdraw_through_tls_accepts_nothing_and_says_nothing_in_clear(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    session = SmtpSession(settings_for(tls_server, tls_context=trusting))
    session.open()
    assert session.offer(Mail()) is None
    session.withdraw()
    assert tls_server.dialogues[0].ended.wait(PATIENCE)
    assert bytes(tls_server.dialogues[0].received).endswith(b"hello\r\n")
    assert tls_server.accepted == []


def test_login_refused_names_the_phase_and_no_secret(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    settings = settings_for(tls_server, username=LOGIN[0], password="wrong-pony", tls_context=trusting)
    error = failure(settings)
    assert (error.outcome.phase, error.outcome.code) == (Phase.AUTH, 535)
    assert "pony" not in str(error)
    assert LOGIN[0] not in str(error)


def test_login_that_is_not_ascii_does_not_show_in_the_error(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext
) -> None:
    error = failure(settings_for(tls_server, username="u", password="pässword", tls_context=trusting))
    assert error.outcome.phase is Phase.AUTH
    assert "ä" not in str(error)
    assert "xe4" not in str(error)


def test_login_that_the_server_does_not_offer_is_an_error(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with ScriptedSmtpServer(tls=server_tls) as server:
        error = failure(settings_for(server, username="u", password="p", tls_context=trusting))
        assert error.outcome.phase is Phase.AUTH


def test_login_in_clear_needs_a_setting_of_its_own(server: ScriptedSmtpServer) -> None:
    with pytest.raises(DeliveryError, match="in clear"):
        settings_for(server, security="none", username=LOGIN[0], password=LOGIN[1])
    settings = settings_for(
        server, security="none", username=LOGIN[0], password=LOGIN[1], auth_without_tls=True
    )
    SmtpConnection(settings).quit()
    assert "AUTH" in server.dialogues[0].verbs


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"security": "ssl"}, "starttls"),
        ({"username": "u"}, "both"),
        ({"password": "p"}, "both"),
        ({"ambiguous_after_dot": Verdict.SENT}, "in_doubt"),
        ({"dot_timeout": 0}, "above 0"),
        ({"command_timeout": -1}, "above 0"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DeliveryError, match=problem):
        SmtpSettings("smtp.example.com", 587, **changes)


def test_settings_do_not_show_the_login() -> None:
    shown = repr(SmtpSettings("smtp.example.com", 587, username="some-user", password="some-password"))
    assert "some-user" not in shown
    assert "some-password" not in shown


def test_nobody_listening_is_an_error_that_names_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(SmtpSettings("127.0.0.1", port, security="none"))
    assert error.outcome.phase is Phase.CONNECT
    assert f"127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize(
    ("phase", "steps", "expected", "verdict", "code"),
    [
        ("connect", [Reply(554, "5.7.1 no service")], Phase.CONNECT, Verdict.RETRY, 554),
        ("connect", [Reply(421, "4.7.0 too many connections")], Phase.CONNECT, Verdict.SLOW_DOWN, 421),
        ("connect", [Eof()], Phase.CONNECT, Verdict.RETRY, None),
        ("connect", [Reset()], Phase.CONNECT, Verdict.RETRY, None),
        ("connect", [Raw(b"HTTP/1.1 400 Bad Request\r\n")], Phase.CONNECT, Verdict.RETRY, None),
        ("ehlo", [Reply(421, "4.3.2 not now")], Phase.EHLO, Verdict.RETRY, 421),
        ("ehlo", [Reset()], Phase.EHLO, Verdict.RETRY, None),
        ("ehlo", [Raw(b"\xff\xfe\r\n")], Phase.EHLO, Verdict.RETRY, None),
    ],
)
def test_server_that_does_not_get_as_far_as_mail_is_an_error_with_its_phase(
    server: ScriptedSmtpServer,
    phase: str,
    steps: list[Step],
    expected: Phase,
    verdict: Verdict,
    code: int | None,
) -> None:
    server.on(phase, *steps)
    outcome = failure(settings_for(server, security="none")).outcome
    assert (outcome.phase, outcome.verdict, outcome.code) == (expected, verdict, code)


@pytest.mark.parametrize(
    ("phase", "expected"), [("connect", Phase.CONNECT), ("ehlo", Phase.EHLO), ("starttls", Phase.TLS)]
)
def test_silence_while_opening_ends_with_a_timeout(
    tls_server: ScriptedSmtpServer, trusting: ssl.SSLContext, phase: str, expected: Phase
) -> None:
    tls_server.on(phase, BlackHole())
    settings = settings_for(
        tls_server, connect_timeout=IMPATIENCE, command_timeout=IMPATIENCE, tls_context=trusting
    )
    assert failure(settings).outcome.phase is expected


def test_write_that_is_not_taken_ends_within_its_own_time(server: ScriptedSmtpServer) -> None:
    server.on("mail", BlackHole())
    connection = SmtpConnection(settings_for(server, security="none"))
    started = time.monotonic()
    with pytest.raises(OSError, match="time"):
        connection.send(b"MAIL FROM:<team@example.com>\r\n" + b"x" * 20_000_000, IMPATIENCE)
    assert time.monotonic() - started < PATIENCE / 2
    connection.drop()


def test_host_name_that_cannot_be_one_is_an_error() -> None:
    error = failure(SmtpSettings("a" * 70 + ".example.com", 25, security="none"))
    assert error.outcome.phase is Phase.CONNECT


def test_connection_that_the_server_has_ended_says_so_and_stays_ended(server: ScriptedSmtpServer) -> None:
    server.on("mail", Eof())
    connection = SmtpConnection(settings_for(server, security="none"))
    with pytest.raises(smtplib.SMTPServerDisconnected):
        connection.ask(b"MAIL FROM:<hello@example.com>\r\n", PATIENCE)
    assert not connection.is_open
    connection.interrupt()
    with pytest.raises(smtplib.SMTPServerDisconnected, match="the server has ended the connection"):
        connection.send(b"RSET\r\n", PATIENCE)
    connection.drop()
    with pytest.raises(smtplib.SMTPServerDisconnected, match="the connection is closed"):
        connection.send(b"RSET\r\n", PATIENCE)
    assert server.dialogues[0].verbs == ["EHLO", "MAIL"]


def test_fault_of_our_own_while_opening_leaves_no_connection_behind(tls_server: ScriptedSmtpServer) -> None:
    no_context: Any = object()
    with pytest.raises(AttributeError):
        SmtpConnection(settings_for(tls_server, tls_context=no_context))
    assert tls_server.dialogues[0].ended.wait(PATIENCE)


def test_session_that_is_open_is_not_opened_again(server: ScriptedSmtpServer) -> None:
    session = SmtpSession(settings_for(server, security="none"))
    session.open()
    session.open()
    session.close()
    assert len(server.dialogues) == 1
