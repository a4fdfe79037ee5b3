"""One connection of the scripted SMTP server: reads commands, does what the script says or the usual."""

import base64
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from tests.scripted_smtp_server import ScriptedSmtpServer

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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


class _Ended(Exception):
    """The connection is over, by script or by the client."""


class Connection:
    """One client, served until it or the script ends the connection."""

    def __init__(self, server: "ScriptedSmtpServer", sock: socket.socket, dialogue: Dialogue) -> None:
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
        # Wait for the client's first word: SSLSocket leaks itself where its peer is gone before it is made.
        if not self._sock.recv(1, socket.MSG_PEEK):
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
