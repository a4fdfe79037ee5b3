"""Which run did which step for which cohorts, so that a decision can be traced to its run.

Knows named queries. Must not know what the steps do, nor Airflow; a run is a name for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from lifecycle_emails.code_version import code_version
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row


def record_step(
    ledger: LedgerConnection,
    campaign_id: str,
    cohort_dates: Sequence[date],
    step: str,
    run: str,
    *,
    started_at: datetime | None = None,
) -> None:
    """Write down that ``run`` begins ``step`` for these cohorts at ``started_at``, or now (ledger's clock).

    ``step`` is the step's task id. Called before the step; where its cohorts are known only afterwards, with
    the time before it.
    """
    arguments = {
        "campaign": campaign_id,
        "cohort_dates": list(cohort_dates),
        "step": step,
        "run": run,
        "started_at": started_at,
        "code_version": code_version(),
    }
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("record_steps"), arguments)


def last_step(
    ledger: LedgerConnection, campaign_id: str, cohort_date: date, step: str
) -> tuple[str, datetime] | None:
    """The run that last began ``step`` for this cohort, and when; None when nobody has."""
    arguments = {"campaign": campaign_id, "cohort_date": cohort_date, "step": step}
    row: tuple[str, datetime] | None = ledger.execute(query("last_step"), arguments).fetchone()
    return row


def ledger_time(ledger: LedgerConnection) -> datetime:
    """The time by the ledger's clock."""
    now: datetime = one_row(ledger.execute(query("time_now")))[0]
    return now
