"""A run's own, shorter deadline on a real Postgres: held for this run, the cohort's deadline untouched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.lateness import hold_late
from tests.integration.ledger.rows import add_cohort, add_sends, connect, make_campaign, states

CAMPAIGN = make_campaign(schedule="0 0 * * *", max_lateness_days=3)
MANY = CapRule("many", 1000, timedelta(days=1))
TODAYS = datetime.now(UTC).date() - timedelta(days=4)
LATE = TODAYS - timedelta(days=2)
DAYS = (LATE, TODAYS)


@pytest.fixture
def ledger(ledger_database: str):
    with connect(ledger_database) as ledger:
        for day in DAYS:
            add_cohort(ledger, cohort_date=day)
        yield ledger


def judge(ledger, max_lateness_days: int | None, campaign=CAMPAIGN):
    filtered = filter_ledger(ledger, campaign, DAYS, max_lateness_days=max_lateness_days)
    limited = limit_rate(
        ledger, campaign, [MANY], DAYS, callbacks=(), run="a run", max_groups=9,
        max_lateness_days=max_lateness_days,
    )  # fmt: skip
    return filtered, limited


def test_run_holds_the_late_and_mails_the_others(ledger) -> None:
    add_sends(ledger, ["late"], cohort_date=LATE)
    add_sends(ledger, ["in time"], cohort_date=TODAYS)
    deadlines = ledger.execute("SELECT cohort_date, not_after FROM lifecycle.cohorts").fetchall()
    filtered, limited = judge(ledger, 2)
    assert states(ledger) == {"in time": "ready", "late": "held/stale"}
    assert (filtered.held, limited.ready) == ({"stale": 1}, 1)
    assert [batch[0] for group in limited.groups for batch in group.batches] == [TODAYS]
    [(detail,)] = ledger.execute("SELECT detail FROM lifecycle.sends WHERE user_id = 'late'").fetchall()
    assert detail == "more than 2 days late, as this run asked (max_lateness_days)"
    assert ledger.execute("SELECT cohort_date, not_after FROM lifecycle.cohorts").fetchall() == deadlines


def test_next_run_without_the_number_mails_them(ledger) -> None:
    add_sends(ledger, ["late"], cohort_date=LATE)
    judge(ledger, 2)
    judge(ledger, 3)
    assert states(ledger) == {"late": "ready"}
    judge(ledger, 1)
    judge(ledger, None)
    assert states(ledger) == {"late": "ready"}


def test_late_are_held_whatever_made_them_wait_but_never_the_gated_or_dropped(ledger) -> None:
    dropping = make_campaign(schedule="0 0 * * *", on_cap="drop")
    for state in ("ready", "sending", "sent", "in_doubt", "rejected"):
        add_sends(ledger, [state], cohort_date=LATE, state=state)
    for reason in ("capped", "daily_limit", "suppressed", "left_audience"):
        add_sends(ledger, [reason], cohort_date=LATE, state="held", held_reason=reason)
    assert hold_late(ledger, dropping, DAYS, 2) == 2
    assert hold_late(ledger, CAMPAIGN, DAYS, 2) == 1
    assert states(ledger) == {
        "ready": "held/stale", "capped": "held/stale", "daily_limit": "held/stale", "sending": "sending",
        "sent": "sent", "in_doubt": "in_doubt", "rejected": "rejected", "suppressed": "held/suppressed",
        "left_audience": "held/left_audience",
    }  # fmt: skip


def test_run_without_a_deadline_of_its_own_holds_nobody(ledger) -> None:
    add_sends(ledger, ["late"], cohort_date=LATE)
    assert hold_late(ledger, CAMPAIGN, DAYS, None) == 0
    assert states(ledger) == {"late": "planned"}
