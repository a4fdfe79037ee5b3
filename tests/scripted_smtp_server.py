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

import base64
import email
import email.policy
import json
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_REFERENCE = re.compile(r"Reference:\s*([\w.-]+)/([\w.-]+)")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


# What a script is made of


class Reply:
    """Answer with one reply, on several lines where there are several texts."""

    def __init__(self, code: int, *lines: str) -> None:
        self.code = code
        texts = lines or ("",)
        self.data = "".join(
            f"{code}{' ' if number == len(texts) else '-'}{text}\r\n" for number, text in enumerate(texts, 1)
        ).encode()


@dataclass(frozen=True)
class Raw:
    """Write these bytes: a garbled, cut, doubled or unasked reply."""

    data: bytes


@dataclass(frozen=True)
class Bytewise:
    """Write these bytes one at a time, `seconds` apart."""

    data: bytes
    seconds: float = 0.0


@dataclass(frozen=True)
class Until:
    """Go on once the event is set."""

    event: threading.Event


@dataclass(frozen=True)
class Delay:
    """Go on after this time."""

    seconds: float


@dataclass(frozen=True)
class Accept:
    """Take responsibility for the message, as a server does before it answers 250."""


@dataclass(frozen=True)
class Queued:
    """Answer 250 with the queue id of the accepted message."""


@dataclass(frozen=True)
class Reset:
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class Eof:
    """End the server's side of the connection in order, and note what the client sends all the same."""


@dataclass(frozen=True)
class BlackHole:
    """Keep the connection, read nothing and answer nothing, until the server stops."""


Step = Reply | Raw | Bytewise | Until | Delay | Accept | Queued | Reset | Eof | BlackHole


# What a dialogue leaves behind


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
class Dialogue:
    """What one connection saw: its commands, those said before TLS, and every byte of the client's."""

    number: int
    commands: list[str] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def verbs(self) -> list[str]:
        """The commands' first words, in upper case."""
        return [command.split(" ", 1)[0].upper() for command in self.commands]


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
        self._connections: list[_Connection] = []
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
            connection = _Connection(self, sock, dialogue)
            self._connections.append(connection)
            self._start(connection.serve)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()


class _Ended(Exception):
    """The connection is over, by script or by the client."""


class _Connection:
    """One client, served until it or the script ends the connection."""

    def __init__(self, server: ScriptedSmtpServer, sock: socket.socket, dialogue: Dialogue) -> None:
        self._server = server
        self._sock = sock
        self._dialogue = dialogue
        self._buffer = bytearray()
        self._encrypted = False
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._content = b""
        self._queue_id = ""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        try:
            if self._server.implicit_tls:
                self._encrypt()
            self._at("connect", Reply(220, "scripted.example.com ESMTP"))
            while True:
                self._obey(self._read_line())
        except (_Ended, OSError):
            pass
        finally:
            self._sock.close()
            self._dialogue.ended.set()

    def interrupt(self) -> None:
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    # Commands

    def _obey(self, line: bytes) -> None:
        command = line.decode("utf-8", "replace").rstrip("\r\n")
        self._dialogue.commands.append(command)
        if not self._encrypted:
            self._dialogue.in_clear.append(command)
        verb = command.split(" ", 1)[0].lower()
        handler = {
            "ehlo": self._ehlo,
            "helo": self._helo,
            "starttls": self._starttls,
            "auth": self._auth,
            "mail": self._mail,
            "rcpt": self._rcpt,
            "data": self._data,
            "rset": self._rset,
            "quit": self._quit,
        }.get(verb)
        if handler is None:
            self._write(Reply(502, "5.5.2 what?").data)
        else:
            handler(command)

    def _ehlo(self, command: str) -> None:
        lines = ["scripted.example.com", *self._server.extensions]
        if self._server.tls is not None and not self._encrypted:
            lines.append("STARTTLS")
        if self._server.login is not None:
            lines.append("AUTH PLAIN LOGIN")
        self._at("ehlo", Reply(250, *lines), line=command)

    def _helo(self, command: str) -> None:
        self._write(Reply(250, "scripted.example.com").data)

    def _starttls(self, command: str) -> None:
        if self._at("starttls", Reply(220, "2.0.0 go ahead"), line=command) == 220:
            self._encrypt()

    def _auth(self, command: str) -> None:
        _, _, argument = command.partition("PLAIN ")
        given = base64.b64decode(argument or b"").decode("utf-8", "replace").split("\0")[1:]
        right = self._server.login is not None and given == list(self._server.login)
        reply = Reply(235, "2.7.0 welcome") if right else Reply(535, "5.7.8 authentication failed")
        self._at("auth", reply, line=command)

    def _mail(self, command: str) -> None:
        if self._is_positive(self._at("mail", Reply(250, "2.1.0 Ok"), line=command)):
            self._forget_transaction()
            self._sender = _path_in(command)

    def _rcpt(self, command: str) -> None:
        usual = Reply(503, "5.5.1 need MAIL") if self._sender is None else Reply(250, "2.1.5 Ok")
        if self._is_positive(self._at("rcpt", usual, line=command)):
            self._recipients.append(_path_in(command))

    def _data(self, command: str) -> None:
        usual = Reply(354, "go on") if self._recipients else Reply(554, "5.5.1 no valid recipients")
        if self._at("data", usual, line=command) == 354:
            self._content = self._read_body()
            self._server.note_reached("dot")
            self._perform(self._server.steps_for("dot") or [Accept(), Queued()])
            self._forget_transaction()

    def _rset(self, command: str) -> None:
        self._at("rset", Reply(250, "2.0.0 Ok"), line=command)
        self._forget_transaction()

    def _quit(self, command: str) -> None:
        self._at("quit", Reply(221, "2.0.0 bye"), line=command)
        raise _Ended

    def _forget_transaction(self) -> None:
        self._sender = None
        self._recipients = []
        self._content = b""
        self._queue_id = ""

    def _read_body(self) -> bytes:
        """Read up to CRLF.CRLF and nothing else (RFC 5321 section 4.1.1.4); take the dot-stuffing away."""
        body = bytearray()
        self._server.note_reached("body")
        while True:
            steps = self._server.steps_for("body", body_bytes=len(body) + len(self._buffer))
            if steps is not None:
                self._perform(steps)
            body += self._read_line()
            if body == b".\r\n" or body.endswith(b"\r\n.\r\n"):
                stuffed = bytes(body[:-3])
                return (stuffed[1:] if stuffed.startswith(b".") else stuffed).replace(b"\r\n..", b"\r\n.")

    # Steps

    def _at(self, phase: str, usual: Reply, line: str = "") -> int | None:
        """Do what the script says, or else the usual; give the code of the last reply."""
        self._server.note_reached(phase)
        return self._perform(self._server.steps_for(phase, line) or [usual])

    def _perform(self, steps: Sequence[Step]) -> int | None:
        code = None
        for step in steps:
            match step:
                case Reply():
                    code = step.code
                    self._write(step.data)
                case Raw():
                    self._write(step.data)
                    code = int(step.data[:3]) if step.data[:3].isdigit() else None
                case Queued():
                    self._write(Reply(250, f"2.0.0 Ok: queued as {self._queue_id}").data)
                case Accept():
                    self._queue_id = self._server.accept(
                        self._sender or "", self._recipients, self._content, self._dialogue.number
                    )
                case _:
                    self._take_time_or_end(step)
        return code

    def _take_time_or_end(self, step: Step) -> None:
        stopping = self._server.stopping
        match step:
            case Bytewise():
                for byte in step.data:
                    self._write(bytes([byte]))
                    stopping.wait(step.seconds)
            case Until():
                while not step.event.wait(0.05) and not stopping.is_set():
                    pass
            case Delay():
                stopping.wait(step.seconds)
            case BlackHole():
                stopping.wait()
                raise _Ended
            case Reset():
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                raise _Ended
            case Eof():
                self._sock.shutdown(socket.SHUT_WR)
                while True:
                    self._read_line()

    @staticmethod
    def _is_positive(code: int | None) -> bool:
        return code is not None and 200 <= code <= 299

    # Bytes

    def _encrypt(self) -> None:
        if self._server.tls is None:
            raise _Ended
        self._sock = self._server.tls.wrap_socket(self._sock, server_side=True)
        self._encrypted = True

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            received = self._sock.recv(65536)
            if not received:
                raise _Ended
            self._dialogue.received += received
            self._buffer += received
        end = self._buffer.index(b"\n") + 1
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line

    def _write(self, data: bytes) -> None:
        self._sock.sendall(data)


def _path_in(command: str) -> str:
    return command.partition("<")[2].rpartition(">")[0]
