"""A run with a deadline of its own, shorter than the cohorts': whoever is too late for it is held.

Knows named queries and the campaign's calendar. Must not know Airflow. The frozen deadlines stay as they are:
to lengthen them is a person's act, see `extending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import deadline_after
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction


def hold_late(
    ledger: LedgerConnection, campaign: Campaign, cohort_dates: Sequence[date], max_lateness_days: int | None
) -> int:
    """Hold as ``stale`` whoever this run would mail more than so many days after the cohort's scheduled run.

    None means that the run has no deadline of its own. Later runs judge them again, before the cohort's own
    deadline. Returns the number of users newly held.
    """
    if max_lateness_days is None:
        return 0
    with planning_transaction(ledger):
        (now,) = one_row(ledger.execute(query("time_now")))
        late = [day for day in cohort_dates if deadline_after(campaign, day, max_lateness_days) <= now]
        arguments = {
            "campaign": campaign.id,
            "late_dates": late,
            "late_detail": f"more than {max_lateness_days} days late, as this run asked (max_lateness_days)",
            "judge_capped": campaign.on_cap == "defer",
        }
        ledger.execute(query("lock_campaign"), arguments)
        return ledger.execute(query("hold_late"), arguments).rowcount
