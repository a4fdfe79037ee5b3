"""A connection to an SMTP server: opened, secured, logged in; bytes out, replies in, with time limits.

The standard library's client does the talking. Its `sendmail` and `data` are not used: they write body and
dot in one go, and tell a refusal from a lost answer only by the type of an exception.

It must not know transactions, nor what a reply means for a message.
"""

from __future__ import annotations

import functools
import smtplib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from lifecycle_emails.delivery.reply import Outcome, Phase, classify, no_answer
from lifecycle_emails.delivery.reply_stream import ReplyStream
from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from lifecycle_emails.delivery.waiting import THREAD_WAITING, Waiting
from lifecycle_emails.errors import DeliveryError

_QUIT_SECONDS = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SEND_THE_REST_ON_CLOSE = struct.pack("ii", 0, 0)


class ConnectionFailed(DeliveryError):
    """The server cannot be used; `outcome` tells in which phase that showed, and what it said."""

    def __init__(self, settings: SmtpSettings, outcome: Outcome) -> None:
        code = f"{outcome.code} " if outcome.code is not None else ""
        super().__init__(
            f"SMTP server {settings.host}:{settings.port} cannot be used, it failed at {outcome.phase}: "
            f"{code}{outcome.reply} (check host, port, security and login of the SMTP connection)"
        )
        self.outcome = outcome


class SmtpConnection:
    """One connection, ready for MAIL. Raises ConnectionFailed where it cannot be brought that far.

    It is opened by blocking calls; then ``waiting`` has its socket.
    """

    def __init__(self, settings: SmtpSettings, waiting: Waiting = THREAD_WAITING) -> None:
        self._settings = settings
        self._waiting: Waiting = THREAD_WAITING
        self._socket: socket.socket | None = None
        """What is waited for; smtplib forgets its own when it reads the end of the connection."""
        self._smtp: smtplib.SMTP | None = None
        self._replies: ReplyStream | None = None
        for phase, step in self._steps():
            try:
                outcome = _attempt(phase, step)
            except BaseException:
                self.drop()
                raise
            if outcome is not None:
                self.drop()
                raise ConnectionFailed(settings, outcome)
        self._be_waited_for_by(waiting)

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known without asking the server."""
        return self._smtp is not None and self._smtp.sock is not None

    def offers(self, extension: str) -> bool:
        """Tell whether the server's answer to EHLO names this extension."""
        return self._smtp is not None and self._smtp.has_extn(extension)

    def send(self, data: bytes, seconds: float) -> None:
        """Write all of it. Raises OSError; some of it may have been written then."""
        self._waiting.send(self._standing().sock, data, time.monotonic() + seconds)

    def reply(self, seconds: float) -> tuple[int, bytes]:
        """Read one whole reply within this time: its code, or -1 where it cannot be read, and its text.

        Raises OSError where none comes.
        """
        self._standing().replies.expect(seconds)
        return self._read_reply()

    def ask(self, data: bytes, seconds: float) -> tuple[int, bytes]:
        """Write all of it and read the reply, both within this time. Raises OSError as the two do."""
        self._standing().replies.expect(seconds)
        self.send(data, seconds)
        return self._read_reply()

    def has_input(self) -> bool:
        """Tell whether the server spoke, or left, without having been asked. Does not wait."""
        return self._replies is None or not self.is_open or self._replies.has_input()

    def quit(self) -> None:
        """Part politely."""
        with suppress(OSError):
            self.ask(b"QUIT\r\n", _QUIT_SECONDS)
            self._standing().sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SEND_THE_REST_ON_CLOSE)
        self.drop()

    def drop(self) -> None:
        """Close the socket; but after `quit`, what the kernel has not sent stays unsent: see `_connect`."""
        smtp, self._smtp = self._smtp, None
        if smtp is None:
            return
        if self._socket is not None:
            self._waiting.forget(self._socket)
        with suppress(OSError):
            smtp.close()

    def interrupt(self) -> None:
        """Wake a thread that waits in `send` or `reply`; it finds the connection ended. For other threads."""
        smtp = self._smtp
        sock = smtp.sock if smtp is not None else None
        if sock is not None:
            with suppress(OSError):
                # Not SSLSocket's own shutdown: it takes the encryption away first, and a write of the other
                # thread would go out in clear.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _steps(self) -> Iterator[tuple[Phase, Callable[[], Outcome | None]]]:
        yield Phase.CONNECT, self._connect
        yield Phase.EHLO, self._greet
        if self._settings.security == "starttls":
            yield Phase.TLS, self._encrypt
            yield Phase.EHLO, self._greet
        if self._settings.username is not None:
            yield Phase.AUTH, self._log_in

    def _connect(self) -> None:
        settings = self._settings
        hostname = settings.local_hostname or _local_hostname()
        if settings.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host,
                settings.port,
                local_hostname=hostname,
                timeout=settings.connect_timeout,
                context=settings.trust(),
            )
        else:
            smtp = smtplib.SMTP(
                settings.host, settings.port, local_hostname=hostname, timeout=settings.connect_timeout
            )
        self._smtp = smtp
        # The dot is a small write after a large one: Nagle's algorithm would hold it back until the other
        # side's delayed acknowledgement, up to 40 ms for every mail.
        _socket_of(smtp).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # From the first byte on, whoever closes the socket: smtplib does when a reply does not come, and the
        # kernel when this process is killed. A dot that still lies in the kernel would go out whenever the
        # server reads on, to somebody who is in doubt and perhaps mailed again meanwhile.
        _socket_of(smtp).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._read_from_socket(smtp)

    def _greet(self) -> Outcome | None:
        smtp = self._allow(self._settings.command_timeout)
        code, text = smtp.ehlo()
        if 500 <= code <= 599:  # RFC 5321 section 3.2: a server may know only HELO
            code, text = smtp.helo()
        return None if 200 <= code <= 299 else classify(Phase.EHLO, code, text)

    def _encrypt(self) -> Outcome | None:
        smtp = self._allow(self._settings.connect_timeout)
        if not smtp.has_extn("starttls"):
            return no_answer(Phase.TLS, "STARTTLS is asked for, and the server does not offer it")
        smtp.starttls(context=self._settings.trust())
        self._read_from_socket(smtp)
        return None

    def _log_in(self) -> Outcome | None:
        smtp = self._allow(self._settings.command_timeout)
        if not smtp.has_extn("auth"):
            return no_answer(Phase.AUTH, "a login is set, and the server does not offer AUTH")
        smtp.login(self._settings.username or "", self._settings.password or "")
        return None

    def _read_from_socket(self, smtp: smtplib.SMTP) -> None:
        """Have smtplib read from a stream with deadlines. What came in clear before TLS is not read on."""
        if smtp.file is not None:
            smtp.file.close()
        smtp.file = self._replies = ReplyStream(_socket_of(smtp))

    def _be_waited_for_by(self, waiting: Waiting) -> None:
        _, sock, replies = self._standing()
        waiting.adopt(sock)
        self._socket = sock
        self._waiting = replies.waiting = waiting

    def _read_reply(self) -> tuple[int, bytes]:
        smtp, _, replies = self._standing()
        code, text = smtp.getreply()
        return (code if replies.is_consistent else -1), text

    def _allow(self, seconds: float) -> smtplib.SMTP:
        """Set the time limit for the next write and the replies to it."""
        smtp, sock, replies = self._standing()
        sock.settimeout(seconds)
        replies.expect(seconds)
        return smtp

    def _standing(self) -> _Standing:
        if self._smtp is None or self._replies is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        return _Standing(self._smtp, _socket_of(self._smtp), self._replies)


class _Standing(NamedTuple):
    """What a connection consists of while it stands."""

    smtp: smtplib.SMTP
    sock: socket.socket
    replies: ReplyStream


def _socket_of(smtp: smtplib.SMTP) -> socket.socket:
    if smtp.sock is None:  # smtplib has read the connection's end
        raise smtplib.SMTPServerDisconnected("the server has ended the connection")
    return smtp.sock


def _attempt(phase: Phase, step: Callable[[], Outcome | None]) -> Outcome | None:
    try:
        return step()
    except smtplib.SMTPResponseException as refusal:
        return classify(phase, refusal.smtp_code, refusal.smtp_error)
    except OSError as error:
        return no_answer(phase, error)
    except ValueError:
        # The text of a UnicodeError shows a character of what could not be encoded, such as a password.
        return no_answer(phase, "the host name or the login holds characters that cannot be sent here")


@functools.cache
def _local_hostname() -> str:
    # smtplib asks the DNS for it for every connection, which takes seconds where that fails.
    return smtplib.SMTP().local_hostname
