"""What the tests of whole dialogues share: a mail, settings, sessions that wait as the run has it, outcomes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict
from lifecycle_emails.delivery.smtp_session import SmtpSession, SmtpSettings
from tests.looped_session import LoopedSession
from tests.scripted_smtp_server import (
    ScriptedSmtpServer,
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


class WayOfWaiting:
    """How the sessions of this run wait: the fixture of this name sets it, `new_session` asks."""

    looped = False
    sessions: list[LoopedSession]

    def __init__(self) -> None:
        self.sessions = []


way_of_waiting = WayOfWaiting()


def new_session(settings: SmtpSettings) -> SmtpSession:
    """Make a session that waits as this run of the test has it."""
    if not way_of_waiting.looped:
        return SmtpSession(settings)
    way_of_waiting.sessions.append(LoopedSession(settings))
    return way_of_waiting.sessions[-1]


@contextmanager
def opened(server: ScriptedSmtpServer, **changes: Any) -> Iterator[SmtpSession]:
    session = new_session(settings_for(server, **changes))
    session.open()
    try:
        yield session
    finally:
        session.close()


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
