"""Grants of a throttle: when a mail may begin, and how many connections a task may hold, over all tasks.

Knows the ledger's row of a throttle and this machine's boot-time clock. Must not know SMTP, nor who waits for
a grant. A grant that is not used is lost, on purpose: whoever took it may have been killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import psycopg

from lifecycle_emails.ledger.gate import uptime
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row, settings
from lifecycle_emails.throttle import Throttle

LONGEST_WAIT_SECONDS = 5.0
"""Nobody is granted a moment further off; a task that would have to wait longer ends, and comes back."""

CONNECTION_LEASE_SECONDS = 60
"""Connections that are not renewed for so long come free."""

ONE_COMPLAINT_SECONDS = 10.0
"""The provider's "too fast" counts once in this time: mails granted before the rate was halved bring more."""


@dataclass(frozen=True)
class Grants:
    """Moments at which mails may begin, by the boot-time clock: the first, and so many, ``spacing`` apart.

    ``first`` is never before the moment that the ledger means. Where fewer than asked for were given,
    ``refused_by`` says why (``rate``, ``daily_maximum``, or ``day_ends``: ask again at once) and
    ``ask_again`` when.
    """

    count: int
    first: float
    spacing: float
    refused_by: str | None
    ask_again: datetime | None


@dataclass(frozen=True)
class ThrottleNow:
    """A throttle as it stands: mails per second configured and in force, mails granted today and the most.

    ``next_free_at``: when the next mail may begin by the rate; ``day_ends``: when the next day begins.
    """

    mails_per_second: float | None
    effective_rate: float | None
    next_free_at: datetime | None
    day: date
    day_ends: datetime
    granted_today: int
    daily_maximum: int | None
    timezone: str
    slowed_at: datetime | None
    slowed_because: str | None

    @property
    def day_is_used_up(self) -> bool:
        """Whether no mail may begin until tomorrow."""
        return self.daily_maximum is not None and self.granted_today >= self.daily_maximum

    def words(self, smtp_conn_id: str) -> str:
        """One line for people."""
        parts = []
        if self.mails_per_second is not None and self.effective_rate is not None:
            parts.append(f"{self.mails_per_second:g} mails/s")
            if self.slowed_at is not None and self.effective_rate < self.mails_per_second:
                parts.append(
                    f"slowed to {self.effective_rate:.3g} since the provider said {self.slowed_because!r} at"
                    f" {self.slowed_at:%Y-%m-%d %H:%M:%S %Z}"
                )
        if self.daily_maximum is not None:
            parts.append(
                f"{self.granted_today} of {self.daily_maximum} mails of {self.day} ({self.timezone})"
            )
        if self.day_is_used_up:
            parts.append("the daily maximum is reached: who is ready stays so for a later run")
        return f"Throttle of {smtp_conn_id}: {'; '.join(parts) or 'connections only'}"


def state_throttle(ledger: LedgerConnection, smtp_conn_id: str, throttle: Throttle) -> None:
    """Tell the ledger the throttle's terms as the file has them; they hold for every task from now on."""
    warm_up = throttle.warm_up
    terms = {
        "smtp_conn_id": smtp_conn_id,
        "mails_per_second": throttle.mails_per_second,
        "mails_per_day": throttle.mails_per_day,
        "timezone": throttle.timezone,
        "warm_up_first_day": warm_up.first_day if warm_up else None,
        "warm_up_mails_per_day": warm_up.mails_per_day if warm_up else None,
        "connections": throttle.connections,
    }
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("state_throttle"), terms)


def take_grants(ledger: LedgerConnection, smtp_conn_id: str, wanted: int) -> Grants:
    """Take up to so many grants: one statement in a transaction of its own, one round trip.

    They are worth something once this returns, which is when COMMIT's own answer was read. Raises
    psycopg.Error.
    """
    arguments = {"smtp_conn_id": smtp_conn_id, "wanted": wanted, "longest_wait": LONGEST_WAIT_SECONDS}
    with ledger.pipeline():
        ledger.execute(query("begin"))
        ledger.execute(query("state_settings"), settings("", 3, 5))
        taken = ledger.execute(query("take_grants"), arguments)
        committed = ledger.execute(query("commit"))
    # The ledger read its clock before now, so that counting from now can only be late.
    now = uptime()
    if committed.statusmessage != "COMMIT":
        raise psycopg.OperationalError("the server answered COMMIT with a roll-back")
    count, first_in, spacing, refused_by, ask_again = one_row(taken)
    return Grants(count, now + first_in, spacing, refused_by, ask_again)


def slow_down(ledger: LedgerConnection, smtp_conn_id: str, because: str) -> float | None:
    """Halve the rate for every task; it recovers by a twentieth of the configured rate a minute.

    Returns mails per second from now on, None where this complaint is already heeded or no rate is set.
    ``because`` is the provider's reply, without addresses.
    """
    arguments = {
        "smtp_conn_id": smtp_conn_id,
        "because": because,
        "one_complaint": ONE_COMPLAINT_SECONDS,
    }
    with ledger_transaction(ledger, lock_timeout=3, statement_timeout=5):
        row = ledger.execute(query("slow_down"), arguments).fetchone()
    return row[0] if row else None


def lease_connections(ledger: LedgerConnection, smtp_conn_id: str, holder: UUID, wanted: int) -> int:
    """Lease as many of the wanted connections as are free, 0 where none is."""
    arguments = {
        "smtp_conn_id": smtp_conn_id,
        "holder": holder,
        "wanted": wanted,
        "seconds": CONNECTION_LEASE_SECONDS,
    }
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("lock_throttle"), arguments)
        ledger.execute(query("drop_ended_connections"), arguments)
        row = ledger.execute(query("lease_connections"), arguments).fetchone()
    return row[0] if row else 0


def renew_connections(ledger: LedgerConnection, holder: UUID) -> bool:
    """Hold the leased connections on; False where the lease has ended."""
    with ledger_transaction(ledger, lock_timeout=3, statement_timeout=5):
        arguments = {"holder": holder, "seconds": CONNECTION_LEASE_SECONDS}
        return ledger.execute(query("renew_connections"), arguments).rowcount == 1


def give_back_connections(ledger: LedgerConnection, holder: UUID) -> None:
    """End the lease now."""
    with ledger_transaction(ledger, lock_timeout=3, statement_timeout=5):
        ledger.execute(query("give_back_connections"), {"holder": holder})


def throttle_now(ledger: LedgerConnection, smtp_conn_id: str) -> ThrottleNow | None:
    """The throttle as it stands, None where no task ever had one for this connection."""
    return _throttles_now(ledger, smtp_conn_id).get(smtp_conn_id)


def throttles_now(ledger: LedgerConnection) -> dict[str, ThrottleNow]:
    """All throttles as they stand, by SMTP connection id, with those that no file names any more."""
    return _throttles_now(ledger, None)


def _throttles_now(ledger: LedgerConnection, smtp_conn_id: str | None) -> dict[str, ThrottleNow]:
    rows = ledger.execute(query("throttles_now"), {"smtp_conn_id": smtp_conn_id})
    return {name: ThrottleNow(*rest) for name, *rest in rows}
