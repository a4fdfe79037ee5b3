"""Turns: each lane of a throttled task waits for its own before every mail, at a moment the ledger granted.

One thread asks the ledger for all lanes that wait, holds the task's leased connections on, and says when a
turn has come. Knows the ledger's throttle and the boot-time clock. Must not know SMTP or mails.

Why no span of t seconds sees more than rate x t + connections mails at the server. A mail counts when its dot
arrives. Those whose moment lies before the span are under way when it begins: at most one a connection, since
a lane asks for its next turn only when its last mail is done. Those whose moment lies in the span are at most
rate x t + 1. Both at once would be one too many only if all connections were under way when the span began;
but a lane rests for 1 / rate after its dot before it asks, and then the first new moment lies so much later.
(Below 0.4 mails a second nobody rests, so that there it may be one more, behind a server that takes seconds.)
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import psycopg

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.gate import RECONNECT_FOR_SECONDS, Event, uptime
from lifecycle_emails.ledger.session import Connect, LedgerConnection, connect_to_ledger
from lifecycle_emails.ledger.throttle import (
    CONNECTION_LEASE_SECONDS,
    Grants,
    give_back_connections,
    lease_connections,
    renew_connections,
    slow_down,
    state_throttle,
    take_grants,
)
from lifecycle_emails.throttle import Throttle

log = logging.getLogger(__name__)

CONNECTIONS_AGAIN_SECONDS = 30.0
"""A task for which no connection is free comes back after this time."""

LONGEST_REST_SECONDS = 2.5
"""A rate so low that lanes would rest longer goes without: tasks end instead of waiting for such a turn."""

RENEW_SECONDS = CONNECTION_LEASE_SECONDS / 4
TRUSTED_SECONDS = CONNECTION_LEASE_SECONDS * 3 / 4
"""No mail begins later than this after the lease of its connection was last renewed."""

WORK_SECONDS = 3600.0
"""A task that has worked for so long comes back for the rest: Airflow ends one that goes on for hours."""

ASK_AGAIN_SECONDS = 1.0
"""While other lanes of the task have turns, one that was granted none asks again after this time."""


@dataclass(frozen=True)
class NoTurn:
    """Why lanes were given no turn, in words, and when to come back; ``for_today``: the daily maximum."""

    because: str
    until: datetime
    for_today: bool = False


@dataclass(slots=True)
class _Asked:
    ready_at: float
    answered: Event
    granted: bool = False

    def answer(self, *, granted: bool) -> None:
        self.granted = granted
        self.answered.set()


class Pacing:
    """The throttle of one task. Its methods are for lanes, but for `stop` and `close`."""

    def __init__(
        self, connect: Connect, smtp_conn_id: str, throttle: Throttle, holder: UUID, connections: int
    ) -> None:
        self._connect = connect
        self._smtp_conn_id = smtp_conn_id
        self._holder = holder
        spacing = 1 / throttle.mails_per_second if throttle.mails_per_second else 0.0
        self._rest = spacing if spacing <= LONGEST_REST_SECONDS else 0.0
        self._ledger: LedgerConnection | None = connect_to_ledger(connect)
        state_throttle(self._ledger, smtp_conn_id, throttle)
        self._leased = throttle.connections is not None
        self._renewed_at = self._renew_at = uptime()
        self._works_until = self._renewed_at + WORK_SECONDS
        self.connections = connections
        """How many connections the task may hold, 0 where none is free."""
        if self._leased:
            self._renew_at += RENEW_SECONDS
            self.connections = lease_connections(self._ledger, smtp_conn_id, holder, connections)
        self.paced = throttle.mails_per_second is not None
        """Whether there is a rate, which a provider that says "too fast" can slow down."""
        self.refusal: NoTurn | None = None
        """Why the last lane that got no turn got none."""
        if not self.connections:
            self.refusal = _refused("no SMTP connection is free", CONNECTIONS_AGAIN_SECONDS)
        self.failure: str | None = None
        self.new_event: Callable[[], Event] = threading.Event
        """Makes what `turn` waits for; lanes that share a thread must not block it."""
        self._changed = threading.Condition()
        self._asking: list[_Asked] = []
        self._given: list[tuple[float, int, _Asked]] = []
        self._numbers = count()
        self._at_work = 0
        self._complaint: str | None = None
        self._complain_at = 0.0
        self._stopping = self._closing = False
        self._trouble_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="throttle", daemon=True)
        self._thread.start()

    def rested_at(self) -> float:
        """When a lane whose dot was answered now, or which begins now, may ask for its next turn."""
        return uptime() + self._rest

    def turn(self, ready_at: float) -> bool:
        """Wait for a turn, asked for at ``ready_at`` (`rested_at`); False: there is none, see `refusal`.

        A turn is for one mail, which begins at once; call `done` after it.
        """
        asked = _Asked(ready_at, self.new_event())
        with self._changed:
            if self._stopping or self.failure:
                return False
            if uptime() >= self._works_until:
                self.refusal = _refused("this task has worked long enough for one try", 0)
                return False
            self._asking.append(asked)
            self._changed.notify_all()
        asked.answered.wait()
        return asked.granted

    def done(self) -> None:
        """The mail of a turn is done, one way or the other."""
        with self._changed:
            self._at_work -= 1

    def complain(self, because: str) -> None:
        """The provider said "too fast", in these words without addresses: slow all tasks down."""
        with self._changed:
            self._complaint, self._complain_at = because, uptime()
            self._changed.notify_all()

    def stop(self) -> None:
        """Give no turn more, and let go of whoever waits for one."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """Give the connections back and end the thread."""
        with self._changed:
            self._stopping = self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=2)

    # --- the thread that owns the ledger connection ---------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                # Not wait_for, whose time-out is that of its beginning: who asks meanwhile may be due sooner.
                if not self._something_is_due():
                    self._changed.wait(self._seconds_to_next())
                if self._closing:
                    break
                now = uptime()
                asking = [asked for asked in self._asking if asked.ready_at <= now]
                self._asking = [asked for asked in self._asking if asked.ready_at > now]
                complaint = self._complaint if self._complain_at <= now else None
            try:
                self._work(asking, complaint)
            except Exception as error:  # noqa: BLE001  # whoever waits for this thread must hear of it
                self._try_again(asking, error)
        self._refuse([], None)
        with suppress(psycopg.Error, LedgerError):
            if self._complaint is not None:
                self._slow_down(self._complaint)
            if self._leased and self._ledger is not None:
                give_back_connections(self._ledger, self._holder)
        if self._ledger is not None:
            self._ledger.close()

    def _something_is_due(self) -> bool:
        waits = self._asking or self._given
        return bool(self._closing or (self._stopping and waits) or self._seconds_to_next() <= 0)

    def _seconds_to_next(self) -> float:
        moments = [asked.ready_at for asked in self._asking]
        if self._given:
            moments.append(self._given[0][0])
        if self._complaint is not None:
            moments.append(self._complain_at)
        if self._leased:
            moments.append(self._renew_at)
        return max(min(moments, default=uptime() + RENEW_SECONDS) - uptime(), 0)

    def _work(self, asking: list[_Asked], complaint: str | None) -> None:
        if complaint is not None:
            self._slow_down(complaint)
        if self._leased and uptime() >= self._renew_at:
            self._renew()
        if self._stopping or self.failure:
            self._refuse(asking, None)
            return
        if asking:
            grants = take_grants(self._working_ledger(), self._smtp_conn_id, len(asking))
            self._hand_out(asking, grants)
            self._trouble_since = None
        self._begin_those_due()

    def _hand_out(self, asking: list[_Asked], grants: Grants) -> None:
        with self._changed:
            for number, asked in enumerate(asking[: grants.count]):
                moment = grants.first + number * grants.spacing
                heapq.heappush(self._given, (moment, next(self._numbers), asked))
            left = asking[grants.count :]
            if not left or grants.ask_again is None:
                return
            if grants.refused_by == "day_ends":
                self._asking += left
                return
            for_today = grants.refused_by == "daily_maximum"
            if not for_today and (self._given or self._at_work):
                for asked in left:
                    asked.ready_at = uptime() + ASK_AGAIN_SECONDS
                self._asking += left
                return
        because = "its daily maximum is reached" if for_today else "its next free moment is too far off"
        self.refusal = NoTurn(because, grants.ask_again, for_today)
        for asked in left:
            asked.answer(granted=False)

    def _begin_those_due(self) -> None:
        now = uptime()
        if self._leased and now > self._renewed_at + TRUSTED_SECONDS:
            self._refuse([], _refused("the lease of its connections ended", CONNECTIONS_AGAIN_SECONDS))
            return
        with self._changed:
            while self._given and self._given[0][0] <= now:
                self._at_work += 1
                heapq.heappop(self._given)[2].answer(granted=True)

    def _renew(self) -> None:
        asked_at = uptime()
        if renew_connections(self._working_ledger(), self._holder):
            self._renewed_at, self._renew_at = asked_at, asked_at + RENEW_SECONDS
            return
        self._leased = False
        self.refusal = _refused("the lease of its connections ended", CONNECTIONS_AGAIN_SECONDS)
        self.stop()

    def _slow_down(self, complaint: str) -> None:
        rate = slow_down(self._working_ledger(), self._smtp_conn_id, complaint)
        with self._changed:
            if self._complaint is complaint:
                self._complaint = None
        if rate is not None:
            log.warning(
                "the provider of %s said %r; slowed down to %.3g mails/s",
                self._smtp_conn_id, complaint, rate,
            )  # fmt: skip

    def _refuse(self, asking: list[_Asked], refusal: NoTurn | None) -> None:
        """Let everybody go who waits."""
        with self._changed:
            asking = [*asking, *self._asking, *(asked for _, _, asked in self._given)]
            self._asking, self._given = [], []
        self.refusal = refusal or self.refusal
        for asked in asking:
            asked.answer(granted=False)

    def _try_again(self, asking: list[_Asked], error: Exception) -> None:
        """The ledger did not answer: what it may have granted is lost, and all is asked again later."""
        log.warning("the throttle got no answer: %s", type(error).__name__)
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None
        now = uptime()
        self._complain_at = now + ASK_AGAIN_SECONDS
        self._trouble_since = self._trouble_since or now
        expected = isinstance(error, psycopg.Error | LedgerError)
        if not expected or now - self._trouble_since > RECONNECT_FOR_SECONDS:
            self.failure = f"the throttle could not go on ({type(error).__name__}); nobody was mailed by it"
            self._refuse(asking, None)
            return
        with self._changed:
            for asked in asking:
                asked.ready_at = now + ASK_AGAIN_SECONDS
            self._asking += asking
            self._renew_at = max(self._renew_at, now + ASK_AGAIN_SECONDS)

    def _working_ledger(self) -> LedgerConnection:
        if self._ledger is None:
            self._ledger = connect_to_ledger(self._connect)
        return self._ledger


def _refused(because: str, seconds: float) -> NoTurn:
    return NoTurn(because, datetime.now(UTC) + timedelta(seconds=seconds))
