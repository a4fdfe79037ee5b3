"""A lane of a throttled SMTP connection: it waits for its turn, and leaves a connection that served its time.

Without a throttle there is no such lane, so that none costs nothing. Knows turns, and the lane that it is.
Must not know how turns are granted.
"""

from __future__ import annotations

from collections.abc import Callable

from lifecycle_emails.delivery.lane import Lane, Mail, Tally, describe
from lifecycle_emails.delivery.pacing import Pacing
from lifecycle_emails.delivery.refusal_watch import RefusalWatch
from lifecycle_emails.delivery.reply import Outcome, Verdict
from lifecycle_emails.delivery.smtp_session import ConnectionFailed, SmtpSession
from lifecycle_emails.ledger.attempt import Record
from lifecycle_emails.ledger.gate import Gate, uptime
from lifecycle_emails.throttle import Throttle


class PacedLane(Lane):
    """Takes mails as a lane does, each in its turn."""

    def __init__(
        self,
        session: SmtpSession,
        next_mail: Callable[[], Mail | None],
        gate: Gate,
        watch: RefusalWatch[Record],
        tally: Tally,
        should_stop: Callable[[], bool],
        pacing: Pacing,
        throttle: Throttle,
    ) -> None:
        super().__init__(session, next_mail, gate, watch, tally, should_stop)
        self._pacing = pacing
        self._throttle = throttle
        self._ready_at = pacing.rested_at()
        self._opened_at = 0.0
        self._mails_on_connection = 0

    def _take(self, mail: Mail) -> bool:
        if not self._pacing.turn(self._ready_at):
            return False
        try:
            return not self._should_stop() and super()._take(mail)
        finally:
            self._ready_at = self._pacing.rested_at()
            self._pacing.done()

    def _offer(self, mail: Mail) -> Outcome | None:
        if self.session.is_open and self._connection_is_used_up():
            self.session.close()
        if not self.session.is_open:
            self._opened_at, self._mails_on_connection = uptime(), 0
        self._mails_on_connection += 1
        try:
            return super()._offer(mail)
        except ConnectionFailed as error:
            if error.outcome.verdict is Verdict.SLOW_DOWN and self._pacing.paced:
                return error.outcome
            raise

    def _connection_is_used_up(self) -> bool:
        most, oldest = self._throttle.mails_per_connection, self._throttle.connection_age
        return (most is not None and self._mails_on_connection >= most) or (
            oldest is not None and uptime() - self._opened_at >= oldest.total_seconds()
        )

    def _too_fast(self, record: Record, outcome: Outcome) -> bool:
        """Slow all tasks down and go on: that we were too fast is no sign of a provider that refuses all."""
        self._pacing.complain(describe(outcome))
        if not self._pacing.paced:
            return super()._too_fast(record, outcome)
        self._record(record)
        return True
