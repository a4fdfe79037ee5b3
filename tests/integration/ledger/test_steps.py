"""Which run began which step of a cohort last, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta

from lifecycle_emails.ledger.steps import last_step, ledger_time, record_step
from tests.integration.ledger.rows import COHORT_DATE, add_cohort


def test_last_step_is_the_run_that_began_it_latest(ready_ledger) -> None:
    now = ledger_time(ready_ledger)
    earlier = COHORT_DATE - timedelta(days=1)
    add_cohort(ready_ledger, cohort_date=earlier)
    for run, minutes in (("first", 10), ("second", 5)):
        record_step(
            ready_ledger, "day4_follow_up", [COHORT_DATE], "limit_rate", run,
            started_at=now - timedelta(minutes=minutes),
        )  # fmt: skip
    record_step(ready_ledger, "day4_follow_up", [COHORT_DATE], "send_batch", "third")
    last = last_step(ready_ledger, "day4_follow_up", COHORT_DATE, "limit_rate")
    assert last == ("second", now - timedelta(minutes=5))
    assert last_step(ready_ledger, "day4_follow_up", earlier, "limit_rate") is None
