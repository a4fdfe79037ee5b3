"""Which cohorts are complete, so that others can follow: no user of them is planned, ready or being mailed.

Knows named queries. Must not know Airflow, nor who follows. The ledger remembers what was told, so that a
cohort is told once for each completion; a run that tells twice may have failed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, planning_transaction


def newly_completed(
    ledger: LedgerConnection, campaign_id: str, cohort_dates: Sequence[date], run: str
) -> dict[date, dict[str, int]]:
    """Cohorts that became complete since somebody was last told, with their users by state.

    A cohort of which the held were mailed later is complete anew, with other counts. The same ``run`` gets
    the same answer again. The counts are ``users``, ``sent``, ``held``, ``rejected`` and ``in_doubt``.
    """
    arguments = {"campaign": campaign_id, "cohort_dates": list(cohort_dates), "run": run}
    with planning_transaction(ledger):
        return dict(sorted(ledger.execute(query("note_completions"), arguments).fetchall()))
