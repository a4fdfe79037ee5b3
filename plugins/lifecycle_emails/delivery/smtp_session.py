"""One SMTP dialogue after another, each cut in two at the only place that matters: before the final dot.

`offer` carries a message up to the dot, where nothing is accepted yet (RFC 5321 section 4.1.1.10); `finish`
writes the dot and reads the answer; `withdraw` ends the connection without it. Whoever calls decides between
the two, and never has to guess which of them happened.

It must not know the ledger, campaigns or Airflow.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict, classify, no_answer
from lifecycle_emails.delivery.smtp_connection import ConnectionFailed, SmtpConnection
from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from lifecycle_emails.delivery.waiting import THREAD_WAITING, Waiting
from lifecycle_emails.delivery.wire import END_OF_DATA, Message, dot_stuffed, envelope, unfit
from lifecycle_emails.errors import ConfigurationError, InvalidAddress

__all__ = ["ConnectionFailed", "Message", "SmtpSession", "SmtpSettings"]

_UNASKED_SECONDS = 5.0


class SmtpSession:
    """One connection to an SMTP server, opened again as often as needed.

    Its methods are called by one thread at a time, except `withdraw`, which any thread may call at any time.
    After an outcome, `is_open` says whether the next message can be offered or `open` must be called first.
    """

    def __init__(self, settings: SmtpSettings, waiting: Waiting = THREAD_WAITING) -> None:
        self._settings = settings
        self._waiting = waiting
        self._connection: SmtpConnection | None = None
        self._before_dot = False
        self._needs_reset = False
        self._withdrawn = False
        self._in_use = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known without asking the server."""
        return not self._withdrawn and self._connection is not None and self._connection.is_open

    def open(self) -> None:
        """Connect, secure the connection, log in. Does nothing where that has been done.

        Raises ConnectionFailed (a DeliveryError) with the outcome of the phase that failed.
        """
        if self.is_open:
            return
        self._withdrawn = False
        with self._exclusive():
            self._drop()
            self._connection = self._waiting.call(lambda: SmtpConnection(self._settings, self._waiting))
        if self._withdrawn:
            raise ConnectionFailed(self._settings, no_answer(Phase.CONNECT, "withdrawn by another thread"))

    def offer(self, message: Message) -> Outcome | None:
        """Carry a message up to the final dot: MAIL, one RCPT, DATA and the whole body.

        None means that only the dot is missing: call `finish` or `withdraw`. An outcome means that nothing
        was accepted. Raises InvalidAddress before a word was said, for a recipient that is not one address or
        that this server cannot be told (SMTPUTF8 is missing), and ConfigurationError for such a sender.
        """
        with self._exclusive():
            if self._withdrawn:
                return no_answer(Phase.MAIL, "withdrawn")
            connection = self._standing()
            outcome = (
                unfit(message, connection.offers)
                or self._unasked(connection, Phase.MAIL)
                or self._negotiate(connection, message)
                or self._send_body(connection, message.content)
            )
            self._before_dot = outcome is None
            return outcome

    def finish(self) -> Outcome:
        """Write the final dot and read the answer, both within `dot_timeout`.

        An outcome of `Phase.BODY` says that no dot was written: the server had given up before, or `withdraw`
        was called. It is a `RETRY` or `SLOW_DOWN`, and never in doubt.
        """
        with self._exclusive():
            if self._withdrawn:
                return no_answer(Phase.BODY, "withdrawn before the dot")
            if not self._before_dot:
                raise RuntimeError("finish() comes after an offer() that returned None")
            connection = self._standing()
            self._before_dot = False
            return self._unasked(connection, Phase.BODY) or self._send_dot(connection)

    def withdraw(self) -> None:
        """End the connection at once and without a dot: what was offered is not accepted.

        A thread that waits in another method of this session returns from it now; one that waits for the
        answer to its dot returns `IN_DOUBT`. Does not interrupt an `open` that is still connecting.
        """
        self._withdrawn = True
        connection = self._connection
        if connection is not None:
            connection.interrupt()
        self._drop_if_withdrawn()

    def close(self) -> None:
        """Part politely; a message before its dot is withdrawn."""
        with self._exclusive():
            if self._connection is not None and not self._before_dot and not self._withdrawn:
                self._connection.quit()
            self._drop()

    def _negotiate(self, connection: SmtpConnection, message: Message) -> Outcome | None:
        """Say MAIL, RCPT and DATA: in one write where the server offers PIPELINING (RFC 2920)."""
        commands = envelope(message, connection.offers)
        if self._needs_reset:
            commands.insert(0, (Phase.MAIL, b"RSET\r\n"))
        self._needs_reset = True
        pipelined = connection.offers("pipelining")
        seconds = self._settings.command_timeout
        refusal: Outcome | None = None
        phase = Phase.MAIL
        try:
            if pipelined:
                connection.send(b"".join(command for _, command in commands), seconds)
            for phase, command in commands:
                if not pipelined:
                    connection.send(command, seconds)
                code, text = connection.reply(seconds)
                if not _goes_on(phase, code):
                    refusal = refusal or classify(phase, code, text)
                    if code == 421 or not 400 <= code <= 599:
                        self._drop()  # the server leaves, or the two sides are out of step
                        return refusal
                    if not pipelined:
                        return refusal
                elif refusal is not None and phase is Phase.DATA:
                    # The server would take a message for nobody (RFC 2920 section 3.1): no dot may follow.
                    self._drop()
        except OSError as error:
            self._drop()
            return refusal or no_answer(phase, error)
        return refusal

    def _send_body(self, connection: SmtpConnection, content: bytes) -> Outcome | None:
        try:
            connection.send(dot_stuffed(content), self._settings.command_timeout)
        except OSError as error:
            self._drop()
            return no_answer(Phase.BODY, error)
        return self._unasked(connection, Phase.BODY)

    def _send_dot(self, connection: SmtpConnection) -> Outcome:
        settings = self._settings
        try:
            code, text = connection.ask(END_OF_DATA, settings.dot_timeout)
        except OSError as error:
            self._drop()
            return no_answer(Phase.DOT, error)
        outcome = classify(Phase.DOT, code, text, ambiguous_after_dot=settings.ambiguous_after_dot)
        if outcome.verdict is Verdict.IN_DOUBT or code == 421:
            self._drop()
        self._needs_reset = False  # RFC 5321 section 4.1.1.4: the dot ends the transaction, whatever follows
        return outcome

    def _unasked(self, connection: SmtpConnection, phase: Phase) -> Outcome | None:
        """Tell what the server said, or that it left, while it was its turn to listen."""
        if not connection.has_input():
            return None
        try:
            seconds = min(_UNASKED_SECONDS, self._settings.command_timeout)
            return classify(phase, *connection.reply(seconds))
        except OSError as error:
            return no_answer(phase, error)
        finally:
            self._drop()

    def _standing(self) -> SmtpConnection:
        if self._connection is None:
            raise RuntimeError("the session is not open; call open() first")
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._before_dot = self._needs_reset = False
        if connection is not None:
            connection.drop()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the connection, and leave none behind in a state that nobody knows."""
        try:
            with self._in_use:
                try:
                    yield
                except (InvalidAddress, ConfigurationError):
                    raise  # nothing was said to the server
                except BaseException:
                    self._drop()
                    raise
        finally:
            self._drop_if_withdrawn()

    def _drop_if_withdrawn(self) -> None:
        """Free the socket; where another thread uses it, that thread does so when it lets go."""
        if self._withdrawn and self._in_use.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._in_use.release()


def _goes_on(phase: Phase, code: int) -> bool:
    return code == 354 if phase is Phase.DATA else 200 <= code <= 299
