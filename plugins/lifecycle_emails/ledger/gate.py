"""The dot gate: a send goes from ready to sending, committed, before the final dot is written.

Lanes (one SMTP connection each) ask and are committed together, as many as are waiting; the outcomes of
earlier attempts ride along. One thread owns the ledger connection. docs/ledger.md explains the protocol.

Knows the ledger. Must not know SMTP: the lane writes the dot, and only after `Gate.ask` answered PASSED.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Protocol
from uuid import UUID

import psycopg

from lifecycle_emails.code_version import code_version
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.batches import LEASE_SECONDS, batch_arrays
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import (
    Connect,
    LedgerConnection,
    connect_to_ledger,
    ledger_transaction,
    settings,
)

log = logging.getLogger(__name__)

DOT_WITHIN_SECONDS = 10.0
"""The dot is written within this time of asking the gate, or not at all."""

ANSWER_MARGIN_SECONDS = 60
"""Added to the dot's own time-outs before a missing answer counts as in doubt."""

RECONNECT_FOR_SECONDS = 300
"""How long a lost ledger is tried again before the task gives up and leaves its outcomes to the sweep."""

UNSTORABLE = (psycopg.DataError, psycopg.IntegrityError, psycopg.InternalError, ValueError)
"""What the database, or psycopg before it, refuses for its content: trying again cannot help."""


ABORTED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
"""What proves that a group was rolled back: nothing of it has to be read back."""

LOCK_SECONDS = 0.5
"""How long a row that somebody else has locked is waited for: shorter than a task has when it must stop."""


def uptime() -> float:
    """Seconds of the clock that keeps running while the process or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Event(Protocol):
    """What whoever asks waits for: a `threading.Event`, or what is like it for lanes that share a thread."""

    def is_set(self) -> bool:
        """Whether it was set."""

    def set(self) -> None:
        """Let whoever waits go on; called by the gate's thread."""

    def wait(self) -> object:
        """Wait until it is set."""


@dataclass(slots=True)
class _Question:
    user_id: str
    attempt: UUID
    address_hash: bytes
    answered: Event
    asked_at: float = field(default_factory=uptime)
    passage: Passage = Passage.NOT_COMMITTED

    def answer(self, passage: Passage) -> None:
        if not self.answered.is_set():
            self.passage = passage
            self.answered.set()


@dataclass(frozen=True)
class GateTerms:
    """What one task gates: its campaign and batches, for which lease holder, template and SMTP connection."""

    campaign_id: str
    batches: Sequence[tuple[date, int]]
    holder: UUID
    smtp_conn_id: str
    template_version: str
    dot_timeout: float
    code_version: str = field(default_factory=code_version)
    probe: bool = False
    """A probe may pass while its provider is stopped."""


class Gate:
    """Group commit of gate questions and outcomes, on one ledger connection owned by one thread."""

    def __init__(self, connect: Connect, terms: GateTerms) -> None:
        self._connect = connect
        self._terms = terms
        self._ledger: LedgerConnection | None = connect_to_ledger(connect)
        self._wake = threading.Condition()
        self._questions: list[_Question] = []
        self._records: list[Record] = []
        self._unresolved: list[_Question] = []
        self._busy = False
        self._stopping = False
        self._closing = False
        self._hurry = False
        self._renewed_at = uptime()
        self.gather_seconds = 0.0
        """How long a group waits for more to come, unless `commit_now` is called."""
        self.new_event: Callable[[], Event] = threading.Event
        """Makes what `ask` waits for; lanes that share a thread must not block it."""
        self.failure: str | None = None
        self.groups, self.seconds, self.slowest_seconds = 0, 0.0, 0.0
        """Groups committed so far, how long that took together, and the longest of them."""
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def ask(self, user_id: str, attempt: UUID, address_hash: bytes) -> Passage:
        """Ask to write the dot for this user; returns when the answer to COMMIT was read, or never will be.

        ``attempt`` is a fresh random uuid. The caller writes the dot only on PASSED and only within
        `DOT_WITHIN_SECONDS` of calling this, else it records NO_DOT.
        """
        question = _Question(user_id, attempt, address_hash, self.new_event())
        with self._wake:
            if self._stopping or self.failure:
                return Passage.NOT_COMMITTED
            self._questions.append(question)
            self._wake.notify_all()
        question.answered.wait()
        return question.passage

    def record(self, record: Record) -> None:
        """Keep an outcome until it is committed; it rides along with the next group."""
        with self._wake:
            self._records.append(record)
            self._wake.notify_all()

    def commit_now(self) -> None:
        """Whoever asks and records has nothing else to do: gather no longer."""
        if self._questions or self._records:
            with self._wake:
                self._hurry = True
                self._wake.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded so far is committed; False when it was not within ``timeout``."""
        with self._wake:
            return (
                self._wake.wait_for(lambda: self._idle() or self.failure is not None, timeout)
                and self._idle()
            )

    def stop(self) -> None:
        """Gate nothing more. Outcomes are still recorded. Safe to call from a signal handler's thread."""
        self._stopping = True

    def close(self, timeout: float) -> bool:
        """Stop, write the outcomes still in memory, end the thread; False when some could not be written."""
        self.stop()
        written = self.flush(timeout)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout=1 if written else 0)
        return written and self.failure is None

    def _idle(self) -> bool:
        return not (self._questions or self._records or self._unresolved or self._busy)

    # --- the thread that owns the ledger connection ---------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                self._wake.wait_for(
                    lambda: bool(self._closing or self._questions or self._records), timeout=LEASE_SECONDS / 4
                )
                if self.gather_seconds and not self._closing:
                    # Each group costs the same few statements, however many it holds.
                    self._wake.wait_for(lambda: self._hurry or self._stopping, timeout=self.gather_seconds)
                self._hurry = False
                if self._closing:
                    break
                questions, records = self._questions, self._records
                self._questions, self._records = [], []
                self._busy = True
            try:
                self._commit(*self._separate(questions, records))
            except Exception as error:  # noqa: BLE001  # whoever waits for this thread must hear of it
                for question in questions:
                    question.answer(Passage.NOT_COMMITTED)  # a question answered before keeps its answer
                self._give_up(len(records), error)
        with self._wake:
            for question in self._questions:
                question.answer(Passage.NOT_COMMITTED)
            self._questions = []
            self._wake.notify_all()
        if self._ledger is not None:
            self._ledger.close()

    def _separate(
        self, questions: list[_Question], records: list[Record]
    ) -> tuple[list[_Question], list[Record]]:
        """No key stands twice in a group, and nobody is gated too late to write the dot."""
        settled: dict[str, Record] = {}
        for record in records:
            if settled.setdefault(record.user_id, record) is not record:
                with self._wake:
                    self._records.append(record)  # what follows on an outcome comes with the next group
        group: list[_Question] = []
        for question in sorted(questions, key=lambda q: q.user_id):
            if self._stopping or uptime() - question.asked_at > DOT_WITHIN_SECONDS / 2:
                question.answer(Passage.NOT_COMMITTED)
            elif question.user_id in settled or (group and group[-1].user_id == question.user_id):
                with self._wake:
                    self._questions.append(question)
            else:
                group.append(question)
        return group, [settled[user_id] for user_id in sorted(settled)]

    def _commit(self, questions: list[_Question], records: list[Record]) -> None:
        began = uptime()
        try:
            passages = self._commit_group(questions, records)
        except (psycopg.Error, ValueError) as error:
            log.warning("a group of the gate was not committed: %s", type(error).__name__)
            self._unresolved = [] if isinstance(error, ABORTED) else questions
            for question in questions:
                question.answer(Passage.NOT_COMMITTED)
            self._recover(records)
            return
        for question in questions:
            question.answer(Passage(passages.get(question.user_id, Passage.LOST)))
        took = uptime() - began
        self.groups, self.seconds = self.groups + 1, self.seconds + took
        self.slowest_seconds = max(self.slowest_seconds, took)

    def _commit_group(self, questions: list[_Question], records: list[Record]) -> dict[str, str]:
        """One transaction, one round trip. The answers count only after COMMIT's own answer was read."""
        ledger = self._ledger
        if ledger is None or ledger.closed:
            raise psycopg.OperationalError("the ledger connection is closed")
        asked = None
        with ledger.pipeline():
            ledger.execute(query("begin"))
            ledger.execute(query("state_settings"), settings("", LOCK_SECONDS, 5))
            ledger.execute(query("lock_sends"), self._keys(records, questions))
            if records:
                ledger.execute(query("record_outcomes"), self._record_arrays(records))
            if questions:
                asked = ledger.execute(query("pass_gate"), self._question_arrays(questions))
            renewing = uptime() - self._renewed_at > LEASE_SECONDS / 4
            if renewing:
                ledger.execute(query("renew_leases"), self._lease_arguments())
            committed = ledger.execute(query("commit"))
        if committed.statusmessage != "COMMIT":
            raise psycopg.OperationalError("the server answered COMMIT with a roll-back")
        if renewing:
            self._renewed_at = uptime()
        return dict(asked.fetchall()) if asked is not None else {}

    def _recover(self, records: list[Record]) -> None:
        """Outcomes first and alone, on a new session; then the unanswered questions are read back by key.

        An outcome whose row somebody else has locked is tried again, and keeps no other back.
        """
        give_up_at = uptime() + RECONNECT_FOR_SECONDS
        pause = 0.05
        while True:
            try:
                ledger = self._reconnect()
                records = self._record_free(ledger, records)
                self._take_back(ledger)
                if not records:
                    return
                trouble: Exception = LedgerError("somebody else has locked rows with outcomes")
            except (psycopg.Error, LedgerError) as error:
                trouble = error
            if uptime() > give_up_at or self._closing:
                self._give_up(len(records), trouble)
                return
            time.sleep(pause)
            pause = min(pause * 2, 5)

    def _reconnect(self) -> LedgerConnection:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None
        self._ledger = connect_to_ledger(self._connect)
        return self._ledger

    def _record_free(self, ledger: LedgerConnection, records: list[Record]) -> list[Record]:
        """Record what can be recorded now; return the outcomes that wait for somebody else's lock.

        One of a group must not take the others along. Words that the ledger cannot take are left out; the
        verdict counts.
        """
        try:
            self._record(ledger, records)
        except (*UNSTORABLE, *ABORTED):
            return [record for record in records if not self._record_alone(ledger, record)]
        return []

    def _record_alone(self, ledger: LedgerConnection, record: Record) -> bool:
        try:
            self._record(ledger, [record])
        except ABORTED:
            return False
        except UNSTORABLE as error:
            log.warning("an outcome is recorded without its words: %s", type(error).__name__)
            self._record(ledger, [replace(record, queue_id=None, detail=None)])
        return True

    def _record(
        self, ledger: LedgerConnection, records: list[Record], lock_timeout: float = LOCK_SECONDS
    ) -> None:
        with ledger_transaction(ledger, lock_timeout=lock_timeout, statement_timeout=60):
            ledger.execute(query("lock_sends"), self._keys(records, ()))
            ledger.execute(query("record_outcomes"), self._record_arrays(records))

    def _take_back(self, ledger: LedgerConnection) -> None:
        """Nobody whose answer was lost wrote a dot, so a row that carries such a token goes back to ready.

        Waits for a COMMIT that is still under way.
        """
        lost = [
            Record(q.user_id, q.attempt, RecordedAs.NO_DOT, detail="no dot written: answer to COMMIT lost")
            for q in self._unresolved
        ]
        if lost:
            self._record(ledger, lost, lock_timeout=30)
        self._unresolved = []

    def _give_up(self, records: int, error: Exception) -> None:
        with self._wake:
            self.failure = (
                f"the gate could not go on ({type(error).__name__}); {records} outcomes were "
                "not recorded and will be in doubt after their answer_due. Nobody is mailed twice"
            )
            for question in self._questions:
                question.answer(Passage.NOT_COMMITTED)
            self._questions, self._unresolved = [], []
            self._wake.notify_all()
        log.error("%s", self.failure)

    def _keys(self, records: Sequence[Record], questions: Sequence[_Question]) -> dict[str, Any]:
        user_ids = sorted({r.user_id for r in records} | {q.user_id for q in questions})
        return {"campaign": self._terms.campaign_id, "user_ids": user_ids}

    def _record_arrays(self, records: Sequence[Record]) -> dict[str, Any]:
        return {
            "campaign": self._terms.campaign_id,
            "user_ids": [record.user_id for record in records],
            "attempts": [record.attempt for record in records],
            "verdicts": [record.recorded_as.value for record in records],
            "held_reasons": [record.held_reason for record in records],
            "queue_ids": [record.queue_id for record in records],
            "details": [record.detail for record in records],
        }

    def _question_arrays(self, questions: Sequence[_Question]) -> dict[str, Any]:
        terms = self._terms
        return {
            "campaign": terms.campaign_id,
            "smtp_conn_id": terms.smtp_conn_id,
            "template_version": terms.template_version,
            "code_version": terms.code_version,
            "probe": terms.probe,
            "answer_seconds": DOT_WITHIN_SECONDS + terms.dot_timeout + ANSWER_MARGIN_SECONDS,
            "user_ids": [question.user_id for question in questions],
            "attempts": [question.attempt for question in questions],
            "address_hashes": [question.address_hash for question in questions],
        }

    def _lease_arguments(self) -> dict[str, Any]:
        terms = self._terms
        arrays = batch_arrays(terms.campaign_id, terms.batches)
        return {**arrays, "holder": terms.holder, "seconds": LEASE_SECONDS}
