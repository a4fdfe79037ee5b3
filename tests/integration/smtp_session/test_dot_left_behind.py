"""A server that stops reading in the middle of a mail, and goes on when its client has given up or is dead.

Body and dot lie in the client's kernel then. Sent later, they would be accepted long after the user counted as
in doubt, and perhaps after a person had the mail sent again.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from tests.integration.smtp_session.dialogue import IN_DOUBT, PATIENCE, Mail, new_session

LONG_MAIL = replace(Mail(), content=Mail().content + (b"x" * 70 + b"\r\n") * 3000)

CLIENT = f"""
import sys
from lifecycle_emails.delivery.smtp_session import SmtpSession, SmtpSettings
from lifecycle_emails.delivery.waiting import ThreadWaiting
from tests.integration.smtp_session.test_dot_left_behind import LONG_MAIL

class Telling(ThreadWaiting):
    def receive(self, connection, deadline):
        print("waits", flush=True)
        return super().receive(connection, deadline)

settings = SmtpSettings(host="127.0.0.1", port=int(sys.argv[1]), security="none", dot_timeout={PATIENCE})
session = SmtpSession(settings, Telling())
session.open()
assert session.offer(LONG_MAIL) is None
print("offered", flush=True)
session.finish()
"""


class StallingServer:
    """Reads nothing after its 354 until it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = self._listener.getsockname()[1]
        self.goes_on = threading.Event()
        self.received = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"220 ready\r\n")
            for answer in (b"250 hello\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
                command = b""
                while not command.endswith(b"\n") and (piece := connection.recv(1)):
                    command += piece
                connection.sendall(answer)
            assert self.goes_on.wait(PATIENCE)
            try:
                while piece := connection.recv(65536):
                    self.received += piece
            except ConnectionResetError:
                pass

    def read_on_to_the_end(self) -> bytes:
        """Everything that the client's machine still sends."""
        self.goes_on.set()
        self._thread.join(PATIENCE)
        return self.received


@pytest.fixture
def server() -> Iterator[StallingServer]:
    server = StallingServer()
    yield server
    server.read_on_to_the_end()


def test_dot_whose_answer_was_not_waited_for_any_longer_is_never_sent(server: StallingServer) -> None:
    settings = SmtpSettings(host="127.0.0.1", port=server.port, security="none", dot_timeout=0.3)
    session = new_session(settings)
    session.open()
    assert session.offer(LONG_MAIL) is None
    assert session.finish().verdict is IN_DOUBT
    session.close()
    assert b"\r\n.\r\n" not in server.read_on_to_the_end()


def test_dot_of_a_killed_process_is_never_sent(server: StallingServer) -> None:
    command = [sys.executable, "-c", CLIENT, str(server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert any(line == "offered\n" for line in client.stdout)
        assert client.stdout.readline() == "waits\n"  # the dot is written
        client.send_signal(signal.SIGKILL)
    assert b"\r\n.\r\n" not in server.read_on_to_the_end()


def test_polite_end_is_no_reset() -> None:
    """Whoever says QUIT reads the answer and then ends the connection (RFC 5321 section 4.1.1.10)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = SmtpSettings(host="127.0.0.1", port=listener.getsockname()[1], security="none")
        session = new_session(settings)
        client = threading.Thread(target=lambda: (session.open(), session.close()))
        client.start()
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as commands:
            connection.sendall(b"220 ready\r\n")
            assert commands.readline().upper().startswith(b"EHLO")
            connection.sendall(b"250 hello\r\n")
            assert commands.readline() == b"QUIT\r\n"
            connection.sendall(b"221 bye\r\n")
            assert commands.read() == b""
        client.join(PATIENCE)
