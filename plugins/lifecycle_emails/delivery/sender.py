"""Sends one group of batches: reads who is due, renders each message, hands it to a lane.

The work of one mapped task. Knows ledger, audience, templates and lanes, and brings them together. Must not
know Airflow. It can be killed anywhere and repeated: the ledger says what is left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg

from lifecycle_emails.cohort import Cohort
from lifecycle_emails.delivery.lane import Lane, Mail, Tally
from lifecycle_emails.delivery.lane_loop import LaneLoop
from lifecycle_emails.delivery.mails import Keys, Mails, SendingTools
from lifecycle_emails.delivery.paced_lane import PacedLane
from lifecycle_emails.delivery.pacing import Pacing
from lifecycle_emails.delivery.refusal_watch import RefusalWatch
from lifecycle_emails.delivery.smtp_session import SmtpSession
from lifecycle_emails.errors import DeliveryError, LedgerError
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.batches import Due, Group, due_rows, due_users, give_back_leases, take_leases
from lifecycle_emails.ledger.gate import RECONNECT_FOR_SECONDS, Gate, GateTerms
from lifecycle_emails.ledger.planning import planned_cohort
from lifecycle_emails.ledger.provider import stop_provider
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import ledger_session, one_row

__all__ = ["SendingTools", "Sent", "send_group"]

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.02
"""How long the gate waits for more lanes at most, while some still talk to their servers."""

ANSWERS_AFTER_STOP_SECONDS = 2.5
"""After a stop, how long answers to dots already written are waited for."""

RECORDING_AFTER_STOP_SECONDS = 1.5
"""After that, how long they may take to be recorded: Airflow kills a task 5 s after asking it to end."""

OUTCOMES = (*(set(RecordedAs) - {RecordedAs.NO_DOT}), Passage.SUPPRESSED, Passage.STALE)
"""What a mail can end in; all else leaves its user due at once."""

PASSES_IN_VAIN = 3
"""So many passes in a row that bring nobody to an outcome end the task: its retry comes after a pause."""

PROGRESS_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Sent:
    """What became of a group, in users.

    ``due_now`` may be sent at once and was not; ``due_later`` wait for ``next_due``. ``stopped_by`` says
    why the group ended early: ``halted``, ``provider_stopped``, ``stop`` (the task was asked to end),
    ``leased`` (another task is at it), or ``throttled`` and ``throttled_for_today``: then
    ``throttled_until`` says when to come back. ``gate_seconds`` and ``gate_slowest_seconds``: how long a
    group took at the gate, on average and at most; None when none got there.
    """

    sent: int
    rejected: int
    held: int
    in_doubt: int
    refused_for_now: int
    due_now: int
    due_later: int
    next_due: datetime | None
    stopped_by: str | None
    seconds: float
    throttled_until: datetime | None = None
    gate_seconds: float | None = None
    gate_slowest_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For XCom: counts only."""
        times = {name: getattr(self, name) for name in ("next_due", "throttled_until")}
        return {**asdict(self), **{name: at and at.isoformat() for name, at in times.items()}}


def send_group(
    tools: SendingTools,
    group: Group,
    *,
    stop: threading.Event,
    probe: bool = False,
    at_most: int | None = None,
) -> Sent:
    """Send what is due in the group's batches, each user at most once, and say what is left.

    ``stop`` ends it early from another thread or a signal: nothing more is gated, answers to dots already
    written are collected for `ANSWERS_AFTER_STOP_SECONDS`. ``probe`` may pass while the provider is
    stopped; ``at_most`` bounds the mails offered. Raises DeliveryError when no SMTP connection could be
    opened, LedgerError when the ledger stayed unreachable; everything that was recorded by then stays
    recorded.
    """
    started = time.monotonic()
    holder = uuid4()
    tally = Tally()
    with ledger_session(tools.connect_ledger) as ledger:
        batches = take_leases(ledger, tools.campaign.id, group, holder)
    if batches:
        try:
            _GroupSender(tools, batches, holder, tally, stop, probe).run(at_most)
        finally:
            _give_back_leases(tools, holder)
    else:
        tally.stopped_by = "leased"
    with ledger_session(tools.connect_ledger) as ledger:
        due = due_rows(ledger, tools.campaign.id, group.batches)
    if tally.failure is not None:
        if due.now or not isinstance(tally.failure, DeliveryError):
            raise tally.failure
        log.warning("a connection could not be used, the others did its work: %s", tally.failure)
    return _summary(tally, due, time.monotonic() - started, stop)


class _GroupSender:
    def __init__(
        self,
        tools: SendingTools,
        batches: tuple[tuple[date, int], ...],
        holder: UUID,
        tally: Tally,
        stop: threading.Event,
        probe: bool,
    ) -> None:
        self._tools = tools
        self._batches = batches
        self._tally = tally
        self._stop = stop
        self._watch: RefusalWatch[Record] = RefusalWatch()
        self._shown_at = time.monotonic()
        terms = GateTerms(
            campaign_id=tools.campaign.id,
            batches=batches,
            holder=holder,
            smtp_conn_id=tools.campaign.smtp_conn_id,
            template_version=tools.templates.version,
            dot_timeout=tools.smtp.dot_timeout,
            probe=probe,
        )
        self._gate = Gate(tools.connect_ledger, terms)
        with ledger_session(tools.connect_ledger) as ledger:
            self._keys = Keys(*one_row(ledger.execute(query("installation_keys"))))
        # Last: it leases connections, which it would hold on to if anything failed after it.
        self._pacing = self._open_pacing(holder)

    def _open_pacing(self, holder: UUID) -> Pacing | None:
        campaign, throttle = self._tools.campaign, self._tools.throttle
        if throttle is None:
            return None
        connect, wanted = self._tools.connect_ledger, campaign.connections
        return Pacing(connect, campaign.smtp_conn_id, throttle, holder, wanted)

    def run(self, at_most: int | None) -> None:
        """Pass over what is due until nothing is, a pass reaches no gate, or some in a row end in nothing."""
        in_vain = 0
        try:
            while not self._should_stop() and in_vain < PASSES_IN_VAIN:
                before = self._tally.counts()
                due = self._read_due()
                if not due:
                    break
                if self._pacing is not None and not self._pacing.connections:
                    self._tally_refusal()
                    break
                self._one_pass(due, at_most)
                after = self._tally.counts()
                if at_most is not None or after == before:
                    self._tally_refusal()
                    break
                in_vain = 0 if any(after[outcome] > before[outcome] for outcome in OUTCOMES) else in_vain + 1
        finally:
            self._end()

    def _read_due(self) -> list[tuple[Cohort, list[str]]]:
        """Who may be sent now, by cohort. The ledger's connection is not kept: sending takes its time."""
        campaign_id = self._tools.campaign.id
        with ledger_session(self._tools.connect_ledger) as ledger:
            users = due_users(ledger, campaign_id, self._batches)
            return [(planned_cohort(ledger, campaign_id, day), ids) for day, ids in users.items()]

    def _should_stop(self) -> bool:
        return bool(
            self._stop.is_set() or self._tally.stopped_by or self._watch.tripped or self._gate.failure
        )

    def _tally_refusal(self) -> None:
        """Where the throttle gave no lane a turn: say so, and let go."""
        refusal = self._pacing.refusal if self._pacing else None
        if refusal is not None and not self._should_stop():
            self._tally.stopped_by = "throttled_for_today" if refusal.for_today else "throttled"
            self._tally.refusal = refusal
            log.info("%s: %s; back at %s", self._tools.campaign.smtp_conn_id, refusal.because, refusal.until)

    def _lane(self, session: SmtpSession, next_mail: Callable[[], Mail | None]) -> Lane:
        if self._pacing is None or self._tools.throttle is None:
            return Lane(session, next_mail, self._gate, self._watch, self._tally, self._should_stop)
        return PacedLane(
            session, next_mail, self._gate, self._watch, self._tally, self._should_stop,
            self._pacing, self._tools.throttle,
        )  # fmt: skip

    def _one_pass(self, due: list[tuple[Cohort, list[str]]], at_most: int | None) -> None:
        total = sum(len(user_ids) for _, user_ids in due)
        loop = LaneLoop()
        mails = Mails(self._tools, due, self._keys, self._gate, self._tally, loop.event, at_most)
        connections = self._tools.campaign.connections
        if self._pacing is not None:
            connections = min(connections, self._pacing.connections)
            self._pacing.new_event = loop.event
        for _ in range(min(connections, total)):
            loop.start(self._lane(SmtpSession(self._tools.smtp, loop), mails.next).run)
        self._gate.new_event, self._gate.gather_seconds = loop.event, GATHER_SECONDS
        stopped_at: float | None = None

        def go_on() -> bool:
            """After a stop, give answers to dots already written their short time."""
            nonlocal stopped_at
            self._show_progress(mails.given, total)
            if self._should_stop():
                mails.end()
                if self._pacing is not None:
                    self._pacing.stop()
            if not self._stop.is_set():
                return True
            self._gate.stop()
            stopped_at = stopped_at or time.monotonic()
            return time.monotonic() - stopped_at <= ANSWERS_AFTER_STOP_SECONDS

        try:
            loop.run(go_on, self._gate.commit_now)
        finally:
            mails.end()
            self._gate.new_event, self._gate.gather_seconds = threading.Event, 0.0
            loop.close()
            self._release_rejections()
        if mails.failure is not None:
            raise mails.failure
        if not self._stop.is_set() and not self._gate.flush(RECONNECT_FOR_SECONDS):
            log.warning("not all outcomes are recorded yet")

    def _release_rejections(self) -> None:
        """At the end of a pass: what is proven is rejected; what is not stays recorded as refused for now.

        Of a probe's one mail nothing is ever proven: that takes another mail, which was accepted.
        """
        proven, unproven = self._watch.drain()
        for rejection in proven:
            self._gate.record(rejection)
            self._tally.count(RecordedAs.REJECTED)
        for _ in unproven:
            self._tally.count(RecordedAs.RETRY)

    def _end(self) -> None:
        try:
            self._end_gate()
        finally:
            if self._pacing is not None:
                self._pacing.close()
        if self._pacing is not None and self._pacing.failure:
            raise LedgerError(self._pacing.failure)

    def _end_gate(self) -> None:
        timeout = RECORDING_AFTER_STOP_SECONDS if self._stop.is_set() else RECONNECT_FOR_SECONDS
        written = self._gate.close(timeout)
        if groups := self._gate.groups:
            self._tally.gate_seconds = self._gate.seconds / groups, self._gate.slowest_seconds
        if self._watch.tripped:
            with ledger_session(self._tools.connect_ledger) as ledger:
                stop_provider(ledger, self._tools.campaign.smtp_conn_id, self._watch.tripped)
            self._tally.stopped_by = "provider_stopped"
        if self._gate.failure or not written:
            raise LedgerError(self._gate.failure or "some outcomes could not be recorded in time")

    def _show_progress(self, offered: int, total: int) -> None:
        if time.monotonic() - self._shown_at > PROGRESS_EVERY_SECONDS:
            self._shown_at = time.monotonic()
            log.info("%d of %d mails offered, %d sent", offered, total, self._tally.counts()[RecordedAs.SENT])


def _give_back_leases(tools: SendingTools, holder: UUID) -> None:
    """End the leases now. Failing to is no fault: they end by themselves."""
    with suppress(LedgerError, psycopg.Error), ledger_session(tools.connect_ledger) as ledger:
        give_back_leases(ledger, tools.campaign.id, holder)


def _summary(tally: Tally, due: Due, seconds: float, stop: threading.Event) -> Sent:
    counts: Counter[str] = tally.counts()
    on_average, longest = tally.gate_seconds or (None, None)
    return Sent(
        sent=counts[RecordedAs.SENT],
        rejected=counts[RecordedAs.REJECTED],
        held=counts[RecordedAs.HELD] + counts["suppressed"] + counts["stale"],
        in_doubt=counts[RecordedAs.IN_DOUBT],
        refused_for_now=counts[RecordedAs.RETRY],
        due_now=due.now,
        due_later=due.later,
        next_due=due.next_due,
        stopped_by="stop" if stop.is_set() else tally.stopped_by,
        seconds=round(seconds, 3),
        throttled_until=tally.refusal.until if tally.refusal and due.now else None,
        gate_seconds=on_average,
        gate_slowest_seconds=longest,
    )
