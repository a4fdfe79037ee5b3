"""A lane: one SMTP connection of a task, taking one mail at a time up to the gate and past it.

Knows the dialogue, the gate and the words of their outcomes. Must not know where mails come from.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import uuid4

from lifecycle_emails.delivery.pacing import NoTurn
from lifecycle_emails.delivery.refusal_watch import RefusalWatch
from lifecycle_emails.delivery.reply import Outcome, Phase, Verdict
from lifecycle_emails.delivery.smtp_session import SmtpSession
from lifecycle_emails.errors import InvalidAddress
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.gate import DOT_WITHIN_SECONDS, Gate, uptime
from lifecycle_emails.message import RenderedMessage

RECORDED_AS = {
    Verdict.SENT: RecordedAs.SENT,
    Verdict.REJECTED: RecordedAs.REJECTED,
    Verdict.RETRY: RecordedAs.RETRY,
    Verdict.SLOW_DOWN: RecordedAs.RETRY,
    Verdict.IN_DOUBT: RecordedAs.IN_DOUBT,
}


@dataclass(frozen=True)
class Mail:
    """One rendered message on its way: whose it is, and the keyed hash of the address it goes to."""

    user_id: str
    address_hash: bytes
    message: RenderedMessage


class Tally:
    """What became of a task's mails, counted over all lanes, and why it should stop early."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.stopped_by: str | None = None
        """Why nothing more should be offered: a halt or a stopped provider."""
        self.refusal: NoTurn | None = None
        """What the throttle said when it gave no lane a turn."""
        self.failure: Exception | None = None
        """What ended a lane: a connection that could not be opened, or a fault of our own."""
        self.gate_seconds: tuple[float, float] | None = None
        """How long a group took at the gate: on average, and the longest; None when there was none."""

    def count(self, what: str) -> None:
        """Add one mail that became ``what``."""
        with self._lock:
            self._counts[what] += 1

    def counts(self) -> Counter[str]:
        """The counts so far, as a copy."""
        with self._lock:
            return self._counts.copy()


class Lane:
    """Takes mails until there are none, a stop is asked for, or its connection cannot be opened.

    ``next_mail`` gives the next one, or None; it may wait.
    """

    def __init__(
        self,
        session: SmtpSession,
        next_mail: Callable[[], Mail | None],
        gate: Gate,
        watch: RefusalWatch[Record],
        tally: Tally,
        should_stop: Callable[[], bool],
    ) -> None:
        self.session = session
        self._next_mail = next_mail
        self._gate = gate
        self._watch = watch
        self._tally = tally
        self._should_stop = should_stop

    def run(self) -> None:
        """Work until there is nothing more to take."""
        try:
            while (mail := self._next_mail()) is not None:
                if self._should_stop() or not self._take(mail):
                    break
        except Exception as error:  # noqa: BLE001  # one lane's fault must not end the others' work
            self._tally.failure = error
        finally:
            self.session.close()

    def _take(self, mail: Mail) -> bool:
        """Bring one mail to its outcome; False when this lane should take no more."""
        try:
            refused = self._offer(mail)
        except InvalidAddress as error:
            self._record(
                Record(mail.user_id, None, RecordedAs.HELD, held_reason="invalid_address", detail=str(error))
            )
            return True
        if refused is not None:
            record = Record(mail.user_id, None, RECORDED_AS[refused.verdict], detail=describe(refused))
            if refused.verdict is Verdict.SLOW_DOWN:
                return self._too_fast(record, refused)
            self._refused(record, named=refused.enhanced is not None)
            return True
        return self._commit_to_dot(mail)

    def _offer(self, mail: Mail) -> Outcome | None:
        """Offer the mail, once more on a new connection where the server had closed an idle one."""
        reused = self.session.is_open
        if not reused:
            self.session.open()
        refused = self.session.offer(mail.message)
        if refused is not None and reused and refused.phase is Phase.MAIL and not self.session.is_open:
            self.session.open()
            refused = self.session.offer(mail.message)
        return refused

    def _commit_to_dot(self, mail: Mail) -> bool:
        """Ask the gate, write the dot, and hand the ledger what came of it."""
        attempt = uuid4()
        asked_at = uptime()
        passage = self._gate.ask(mail.user_id, attempt, mail.address_hash)
        if passage is not Passage.PASSED:
            self.session.withdraw()
            self._tally.count(passage.value)
            if passage in (Passage.HALTED, Passage.PROVIDER_STOPPED):
                self._tally.stopped_by = passage.value
            return True
        if uptime() - asked_at > DOT_WITHIN_SECONDS:
            # Nothing but the server's own time-out stands between this check and the write below.
            self.session.withdraw()
            self._record(Record(mail.user_id, attempt, RecordedAs.NO_DOT, detail="no dot written: too late"))
            return True
        outcome = self.session.finish()
        recorded_as = RecordedAs.NO_DOT if outcome.phase is Phase.BODY else RECORDED_AS[outcome.verdict]
        record = Record(
            mail.user_id, attempt, recorded_as, queue_id=outcome.queue_id, detail=describe(outcome)
        )
        if outcome.verdict is Verdict.SLOW_DOWN:
            return self._too_fast(record, outcome)
        self._answered(record, named=outcome.enhanced is not None)
        return True

    def _too_fast(self, record: Record, outcome: Outcome) -> bool:  # noqa: ARG002  (a paced lane tells why)
        """The provider asks for fewer mails: without a throttle, this lane ends."""
        self._answered(record, named=False)
        return False

    def _answered(self, record: Record, *, named: bool) -> None:
        if record.recorded_as in (RecordedAs.REJECTED, RecordedAs.RETRY):
            self._refused(record, named=named)
            return
        self._record(record)
        if record.recorded_as is RecordedAs.SENT:
            for rejection in self._watch.accepted():
                self._record(rejection)

    def _refused(self, record: Record, *, named: bool) -> None:
        """Record at once that nothing was accepted; that it was the recipient's fault waits in the watch."""
        if record.recorded_as is RecordedAs.REJECTED:
            self._gate.record(replace(record, recorded_as=RecordedAs.RETRY))
            self._watch.refused(replace(record, attempt=None), named=named)
        else:
            self._watch.refused()
            self._record(record)

    def _record(self, record: Record) -> None:
        self._gate.record(record)
        self._tally.count(record.recorded_as)


def describe(outcome: Outcome) -> str:
    """The outcome in the ledger's words: phase, code and the server's reply, already without addresses."""
    code = "no answer," if outcome.code is None else str(outcome.code)
    return f"{outcome.phase.value}: {code} {outcome.reply}".strip()
