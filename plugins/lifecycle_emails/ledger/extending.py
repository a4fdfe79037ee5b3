"""A person lengthens the frozen deadlines of a range of cohorts: one approval, which names whom it may reach.

Knows named queries. Must not know how the approval was asked for; the caller shows the `Extension` first, and
passes back the number of users that was approved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction
from lifecycle_emails.order import LONGEST_EXTENSION_DAYS


@dataclass(frozen=True)
class Extension:
    """What extending cohorts by ``days`` means.

    ``users``: those not gated yet, at most so many more mails; ``stale``: those of them held as too late
    now. ``latest``: the last of the new deadlines, each ``days`` after the old one, or after now where that
    is past. ``earlier``: how many extensions these cohorts have had; ``last``: who made the last one
    and when, in words, or blank.
    """

    campaign: str
    cohort_from: date
    cohort_to: date
    days: int
    cohorts: int
    users: int
    stale: int
    latest: datetime
    earlier: int
    last: str


def look_at_extension(
    ledger: LedgerConnection, campaign_id: str, cohort_from: date, cohort_to: date, days: int
) -> Extension:
    """Count what would be extended; changes nothing. Raises LedgerError when there is no such cohort."""
    if not 1 <= days <= LONGEST_EXTENSION_DAYS:
        raise LedgerError(f"{days} days: write 1 to {LONGEST_EXTENSION_DAYS}; nothing was changed")
    arguments = {"campaign": campaign_id, "cohort_from": cohort_from, "cohort_to": cohort_to, "days": days}
    cohorts, users, stale, latest, earlier = one_row(ledger.execute(query("extension_count"), arguments))
    if not cohorts:
        raise LedgerError(
            f"campaign {campaign_id} has no cohort from {cohort_from} to {cohort_to}; nothing was changed. "
            "Days never planned are planned by a backfill first"
        )
    last = ""
    if earlier:
        who, when = one_row(ledger.execute(query("last_extension"), arguments))
        last = f"{who} at {when:%Y-%m-%d %H:%M %Z}"
    return Extension(campaign_id, cohort_from, cohort_to, days, cohorts, users, stale, latest, earlier, last)


def extend(ledger: LedgerConnection, approved: Extension, *, reason: str, actor: str = "") -> int:
    """Lengthen the deadlines as approved, and write it down. The next run judges the stale again.

    Returns how many users are in doubt for it: of a cohort that was over when the ledger went back in time,
    since a forgotten extension may have let them be mailed.

    Raises LedgerError, and changes nothing: without a reason, when more users are concerned by now than were
    approved, and when somebody has extended one of these cohorts since it was looked at.
    """
    if not reason.strip():
        raise LedgerError("give a reason; nothing was changed")
    arguments: dict[str, Any] = {
        "campaign": approved.campaign,
        "cohort_from": approved.cohort_from,
        "cohort_to": approved.cohort_to,
        "days": approved.days,
    }
    with planning_transaction(ledger, actor=actor):
        ledger.execute(query("lock_campaign"), arguments)
        now = look_at_extension(
            ledger, approved.campaign, approved.cohort_from, approved.cohort_to, approved.days
        )
        if now.earlier != approved.earlier:
            raise LedgerError(
                f"these cohorts were extended since you looked, by {now.last}; nothing was changed. Look "
                "at it again"
            )
        if now.users > approved.users:
            raise LedgerError(
                f"{now.users} users are concerned by now, and {approved.users} were approved; nothing was "
                "changed. Look at it again"
            )
        ledger.execute(
            query("record_extension"),
            {
                **arguments,
                "cohorts": now.cohorts,
                "users": now.users,
                "reason": reason.strip(),
                "actor": actor,
            },
        )
        cohort_dates = ledger.execute(query("extend_cohorts"), arguments).fetchall()
        ledger.execute(query("lock_frequency_cap"))
        return sum(
            ledger.execute(query("doubt_arrivals"), {**arguments, "cohort_date": day}).rowcount
            for (day,) in cohort_dates
        )
