"""A real SMTP server on loopback that does, at every phase of a dialogue, what its script says.

It is the judge of what was accepted: a message counts at its final dot, whatever is answered afterwards. It
knows nothing of the package under test; the users whom a message is for are read from the reference line in
its body.

    with ScriptedSmtpServer() as server:
        server.on("rcpt", Reply(550, "5.1.1 no such user"), when=lambda line: "bob" in line)
        server.on("dot", Accept(), BlackHole(), times=1)
        ...
        assert server.accepted == []

Phases: connect, ehlo, starttls, auth, mail, rcpt, data, body (with `after_bytes` of it), dot, rset, quit.
"""

import email
import email.policy
import json
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.scripted_smtp_connection import Connection, Dialogue
from tests.smtp_script import (
    Accept,
    BlackHole,
    Bytewise,
    Delay,
    Eof,
    Queued,
    Raw,
    Reply,
    Reset,
    Step,
    Until,
)

__all__ = [
    "Accept",
    "Accepted",
    "BlackHole",
    "Bytewise",
    "Delay",
    "Dialogue",
    "Eof",
    "Queued",
    "Raw",
    "Reply",
    "Reset",
    "ScriptedSmtpServer",
    "Step",
    "Until",
]

_REFERENCE = re.compile(r"Reference:\s*([\w.-]+)/([\w.-]+)")


@dataclass(frozen=True)
class Accepted:
    """One message for which the server took responsibility. `at` is seconds since the epoch."""

    queue_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    connection: int
    at: float

    @property
    def reference(self) -> tuple[str, str] | None:
        """Campaign and user id from the line "Reference: campaign/user_id" in the body."""
        message = email.message_from_bytes(self.content, policy=email.policy.default)
        for part in message.walk():
            if part.get_content_maintype() == "text":
                found = _REFERENCE.search(part.get_content())
                if found:
                    return found.group(1), found.group(2)
        return None


@dataclass
class _Rule:
    phase: str
    steps: tuple[Step, ...]
    times: int | None
    when: Callable[[str], bool] | None
    after_bytes: int


class ScriptedSmtpServer:
    """Listens on a free port of 127.0.0.1 from `start` to `stop`; a context manager does both.

    `tls` serves STARTTLS, or TLS from the first byte with `implicit_tls`. `login` is the one user name and
    password taken by AUTH. `record` names a file that gets one JSON line per accepted message, flushed to the
    disk before anything is answered.
    """

    def __init__(
        self,
        *,
        extensions: Iterable[str] = ("PIPELINING", "SIZE 10485760", "8BITMIME", "ENHANCEDSTATUSCODES"),
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
        record: Path | None = None,
    ) -> None:
        self.extensions = list(extensions)
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.login = login
        self.accepted: list[Accepted] = []
        self.dialogues: list[Dialogue] = []
        self.stopping = threading.Event()
        self._record = record
        self._rules: list[_Rule] = []
        self._reached: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def on(
        self,
        phase: str,
        *steps: Step,
        times: int | None = None,
        when: Callable[[str], bool] | None = None,
        after_bytes: int = 1,
    ) -> None:
        """Do these steps at a phase instead of what a server does.

        `times`: only the first so many times. `when`: only for command lines it is true for. `after_bytes`:
        for the phase "body", once so many bytes of it have come. The first rule that fits is taken.
        """
        with self._changed:
            self._rules.append(_Rule(phase, steps, times, when, after_bytes))

    def wait_until(self, phase: str, times: int = 1, seconds: float = 10.0) -> None:
        """Wait until dialogues have reached the phase so often. Raises AssertionError when they do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._reached[phase] >= times, seconds):
                raise AssertionError(f"no dialogue reached {phase} {times} times: {dict(self._reached)}")

    def copies(self) -> Counter[tuple[str, str] | None]:
        """Count accepted messages by campaign and user id."""
        with self._changed:
            return Counter(message.reference for message in self.accepted)

    def start(self) -> Self:
        """Begin to accept connections."""
        self._start(self._accept_connections)
        return self

    def stop(self) -> None:
        """End every connection and wait until nothing runs any more."""
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads[:1]:
            thread.join(10)  # no connection comes after this
        for connection in self._connections:
            connection.interrupt()
        for thread in self._threads:
            thread.join(10)
            if thread.is_alive():
                raise AssertionError("a thread of the scripted SMTP server does not end")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # For its connections

    def steps_for(self, phase: str, line: str = "", body_bytes: int = 0) -> Sequence[Step] | None:
        """Find what the script has for this moment; None leaves it to the server."""
        with self._changed:
            for rule in self._rules:
                due = (
                    rule.phase == phase
                    and rule.times != 0
                    and (phase != "body" or body_bytes >= rule.after_bytes)
                )
                if due and (rule.when is None or rule.when(line)):
                    if rule.times is not None:
                        rule.times -= 1
                    return rule.steps
        return None

    def note_reached(self, phase: str) -> None:
        """Tell those who wait that a dialogue got here."""
        with self._changed:
            self._reached[phase] += 1
            self._changed.notify_all()

    def accept(self, sender: str, recipients: Sequence[str], content: bytes, connection: int) -> str:
        """Take a message, durably where a record is kept, and give its queue id."""
        with self._changed:
            queue_id = f"4Q{len(self.accepted) + 1:06X}z"
            message = Accepted(queue_id, sender, tuple(recipients), content, connection, time.time())
            self.accepted.append(message)
            if self._record is not None:
                self._write(message, self._record)
        return queue_id

    def _write(self, message: Accepted, record: Path) -> None:
        campaign, user_id = message.reference or (None, None)
        line = {"queue_id": message.queue_id, "campaign": campaign, "user_id": user_id, "at": message.at}
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _accept_connections(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            dialogue = Dialogue(len(self.dialogues) + 1)
            self.dialogues.append(dialogue)
            connection = Connection(self, sock, dialogue)
            self._connections.append(connection)
            self._start(connection.serve)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()
