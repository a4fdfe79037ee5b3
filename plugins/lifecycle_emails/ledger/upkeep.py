"""What must happen whether or not a run comes: doubts settled or told, the stale held, gaps told.

Knows named queries. Must not know Airflow, SMTP, or callbacks: what is found becomes an alert row, and
delivering it is somebody else's work. Reports gaps between cohorts; it does not plan them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import cohort_date_of, nominal_tick
from lifecycle_emails.errors import LifecycleError
from lifecycle_emails.ledger.alerts import NAMED_USERS, create_alert
from lifecycle_emails.ledger.evidence import NOTHING_IN_DOUBT, EvidenceSource, settle_by_evidence
from lifecycle_emails.ledger.provider import MAINTENANCE
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import (
    PLANNING_TIMEOUT_SECONDS,
    LedgerConnection,
    first_line,
    ledger_transaction,
    planning_transaction,
)

log = logging.getLogger(__name__)

BUSY_AFTER_SECONDS = 2
"""A campaign whose plan or dry run holds a lock for longer is left to the next round, which is soon."""

GRACE = timedelta(hours=3)
"""A cohort counts as missing when its tick is this long ago and nobody planned it."""

KEEP_DETAIL = timedelta(days=400)
"""Server replies, address hashes, history and alerts are kept this long after their cohort closed."""


@dataclass(frozen=True)
class Upkeep:
    """What one round did, in users, cohorts and rows."""

    in_doubt: int
    settled: int
    stale: int
    closed: int
    missing: int
    dropped: int

    def as_dict(self) -> dict[str, Any]:
        """For XCom: counts only."""
        return asdict(self)


def keep_up(
    ledger: LedgerConnection,
    campaigns: Iterable[Campaign],
    *,
    now: datetime,
    keep: timedelta = KEEP_DETAIL,
    evidence: Sequence[EvidenceSource] = (),
) -> Upkeep:
    """One round over all open cohorts. ``campaigns``: those whose DAGs should be running; ``now`` is aware.

    Doubts are settled by ``evidence`` where it proves something. Every doubt left that was not told of yet,
    and every gap between cohorts, becomes an alert for the maintenance callbacks. No campaign keeps another
    one waiting, and the locks of plans are asked for when all doubts are told: who is busy is left to the
    next round. Raises the first LifecycleError or psycopg.Error when all else is done.
    """
    in_doubt = stale = closed = missing = dropped = 0
    settled, errors = NOTHING_IN_DOUBT, list[LifecycleError | psycopg.Error]()
    open_campaigns = [row[0] for row in ledger.execute(query("open_campaigns")).fetchall()]
    for campaign_id in open_campaigns:
        with _kept_apart(f"sweeping {campaign_id}", errors), _impatient(ledger):
            in_doubt += _sweep(ledger, campaign_id, ())
    with _kept_apart("settling by evidence", errors):
        settled = settle_by_evidence(ledger, evidence, lock_timeout=BUSY_AFTER_SECONDS)
    for campaign_id in open_campaigns:
        with _kept_apart(f"telling of {campaign_id}'s doubts", errors), _impatient(ledger):
            _tell_of_doubts(ledger, campaign_id)
    for campaign_id in open_campaigns:
        arguments = {"campaign": campaign_id}
        with _kept_apart(f"closing cohorts of {campaign_id}", errors), _impatient(ledger):
            ledger.execute(query("lock_campaign"), arguments)
            stale += _hold_stale(ledger, campaign_id)
            ledger.execute(query("lock_overdue_cohorts"), arguments)
            closed += ledger.execute(query("close_cohorts"), arguments).rowcount
    for campaign in campaigns:
        with _kept_apart(f"looking for gaps of {campaign.id}", errors), _impatient(ledger):
            missing += _tell_of_gaps(ledger, campaign, now)
    with _kept_apart("dropping old detail", errors), _impatient(ledger):
        dropped = _drop_detail(ledger, keep)
    if errors:
        raise errors[0]
    return Upkeep(in_doubt, settled.sent + settled.bounced, stale, closed, missing, dropped)


def sweep(ledger: LedgerConnection, campaign_id: str, cohort_dates: Sequence[date]) -> int:
    """Move what has waited for its answer for too long to in_doubt, in these cohorts and the open ones."""
    with planning_transaction(ledger):
        return _sweep(ledger, campaign_id, cohort_dates)


def oldest_open_rows(ledger: LedgerConnection) -> list[tuple[str, float]]:
    """Each campaign of the ledger, and for how many seconds its oldest open row has been there."""
    return ledger.execute(query("oldest_open_rows")).fetchall()


@contextmanager
def _kept_apart(what: str, errors: list[LifecycleError | psycopg.Error]) -> Iterator[None]:
    """Let one part of a round fail alone: a busy lock is left to the next round, an error is kept."""
    try:
        yield
    except psycopg.errors.LockNotAvailable:
        log.warning("%s is left to the next round: a plan, a dry run, a command or a sender is at it", what)
    except (LifecycleError, psycopg.Error) as error:
        log.warning("%s failed: %s", what, first_line(error))
        errors.append(error)


def _impatient(ledger: LedgerConnection) -> AbstractContextManager[None]:
    return ledger_transaction(
        ledger,
        actor="maintenance",
        lock_timeout=BUSY_AFTER_SECONDS,
        statement_timeout=PLANNING_TIMEOUT_SECONDS,
    )


def _sweep(ledger: LedgerConnection, campaign_id: str, cohort_dates: Sequence[date]) -> int:
    """Needs no campaign's lock: the rows say by themselves whether their answer is overdue."""
    arguments = {"campaign": campaign_id, "cohort_dates": list(cohort_dates)}
    return ledger.execute(query("sweep_cohorts"), arguments).rowcount


def _tell_of_doubts(ledger: LedgerConnection, campaign_id: str) -> None:
    doubts = ledger.execute(query("doubts_to_tell"), {"campaign": campaign_id}).fetchall()
    if not doubts:
        return
    users = sorted({user_id for _, user_id, _, _ in doubts})
    facts = {
        "users": len(users),
        "user_ids": users[:NAMED_USERS],
        "cohort_dates": sorted({cohort_date.isoformat() for _, _, cohort_date, _ in doubts}),
    }
    alert_id = create_alert(
        ledger, "in_doubt", campaign_id, None, run="maintenance", facts=facts, callbacks=MAINTENANCE
    )
    ledger.execute(
        query("bind_events_to_alert"), {"alert_id": alert_id, "event_ids": [doubt[0] for doubt in doubts]}
    )


def _hold_stale(ledger: LedgerConnection, campaign_id: str) -> int:
    """Hold whom no run has mailed in time; tell of them, and of the ready whom a run or the gate held so."""
    held = ledger.execute(query("hold_stale"), {"campaign": campaign_id}).fetchall()
    expired = ledger.execute(query("expired_to_tell"), {"campaign": campaign_id}).fetchall()
    users = {(day, user_id) for day, _, in_time in held for user_id in in_time}
    users |= {(day, user_id) for _, user_id, day in expired}
    if users:
        of_day = Counter(day for day, _ in sorted(users))
        facts = {
            "users": len(users),
            "cohort_dates": {day.isoformat(): count for day, count in of_day.items()},
        }
        alert_id = create_alert(
            ledger, "expired", campaign_id, None, run="maintenance", facts=facts, callbacks=MAINTENANCE
        )
        ledger.execute(
            query("bind_events_to_alert"), {"alert_id": alert_id, "event_ids": [row[0] for row in expired]}
        )
    return sum(count for _, count, _ in held)


def _tell_of_gaps(ledger: LedgerConnection, campaign: Campaign, now: datetime) -> int:
    newest = cohort_date_of(campaign, now)
    if nominal_tick(campaign, newest) + GRACE > now:
        newest -= timedelta(days=1)
    ledger.execute(query("lock_campaign"), {"campaign": campaign.id})
    rows = ledger.execute(query("missing_cohorts"), {"campaign": campaign.id, "newest": newest}).fetchall()
    if rows:
        facts = {"cohort_dates": [day.isoformat() for (day,) in rows]}
        create_alert(
            ledger, "missing_cohorts", campaign.id, rows[-1][0],
            run="maintenance", facts=facts, callbacks=MAINTENANCE,
        )  # fmt: skip
    return len(rows)


def _drop_detail(ledger: LedgerConnection, keep: timedelta) -> int:
    return sum(
        ledger.execute(query(name), {"keep": keep}).rowcount
        for name in (
            "drop_send_detail",
            "drop_old_events",
            "drop_old_refusals",
            "drop_old_alerts",
            "drop_old_marks",
            "drop_old_steps",
        )
    )
