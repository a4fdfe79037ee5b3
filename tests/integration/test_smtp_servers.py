"""The session against servers that others wrote."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from lifecycle_emails.delivery.reply import Verdict
from lifecycle_emails.delivery.smtp_session import SmtpSession, SmtpSettings
from lifecycle_emails.errors import DeliveryError

MESSAGES = 50


@dataclass(frozen=True)
class Mail:
    recipient: str
    content: bytes = b"Subject: x\r\n\r\n.\r\n..\r\nhello\r\n"
    sender: str = "team@example.com"
    needs_smtputf8: bool = False


class Keeper:
    """Keeps what aiosmtpd accepts, and refuses one recipient."""

    def __init__(self) -> None:
        self.kept: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("bob"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.kept.append(envelope)
        return f"250 2.0.0 Ok: queued as A{len(self.kept):07d}"


@pytest.fixture
def keeper() -> Iterator[tuple[Keeper, int]]:
    """Give a running aiosmtpd's keeper and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    keeper = Keeper()
    controller = Controller(keeper, hostname="127.0.0.1", port=port, enable_SMTPUTF8=True)
    controller.start()
    yield keeper, port
    controller.stop()


def test_session_with_aiosmtpd(keeper: tuple[Keeper, int]) -> None:
    kept, port = keeper[0].kept, keeper[1]
    session = SmtpSession(SmtpSettings("127.0.0.1", port, security="none"))
    session.open()
    verdicts = []
    for recipient in ("ann@example.com", "bob@example.com", "cid@example.com", "jörg@example.com"):
        outcome = session.offer(Mail(recipient)) or session.finish()
        verdicts.append(outcome.verdict)
    assert session.offer(Mail("dan@example.com")) is None
    session.withdraw()
    assert verdicts == [Verdict.SENT, Verdict.REJECTED, Verdict.SENT, Verdict.SENT]
    assert [envelope.rcpt_tos for envelope in kept] == [
        ["ann@example.com"],
        ["cid@example.com"],
        ["jörg@example.com"],
    ]
    assert {envelope.content for envelope in kept} == {Mail.content}


@pytest.fixture
def sink() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Give Postfix's smtp-sink, counting on its standard output, and its port."""
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("smtp-sink is not installed (it comes with Postfix: apt-get install postfix)")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    command = [program, *user, "-c", f"127.0.0.1:{port}", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process, port
        finally:
            process.kill()


def test_session_with_smtp_sink(sink: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = sink
    session = SmtpSession(SmtpSettings("127.0.0.1", port, security="none"))
    _open_once_it_listens(session, process)
    outcomes = [
        session.offer(Mail(f"user{number}@example.com")) or session.finish() for number in range(MESSAGES)
    ]
    assert session.offer(Mail("withdrawn@example.com")) is None
    session.withdraw()
    session.open()  # one process serves all: it has seen the end of the first connection by now
    session.close()
    process.terminate()
    counted, _ = process.communicate()
    assert [outcome.verdict for outcome in outcomes] == [Verdict.SENT] * MESSAGES
    assert int(re.findall(rb"mesg=(\d+)", counted)[-1]) == MESSAGES


def _open_once_it_listens(session: SmtpSession, process: subprocess.Popen[bytes]) -> None:
    while not session.is_open:
        assert process.poll() is None, "smtp-sink does not start"
        with suppress(DeliveryError):
            session.open()
