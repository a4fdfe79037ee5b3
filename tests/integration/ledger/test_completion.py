"""Which cohorts are told to be complete, and how often, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle_emails.ledger.completion import newly_completed
from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, connect, without_triggers

CAMPAIGN = "day4_follow_up"
NEXT = COHORT_DATE + timedelta(days=1)


@pytest.fixture
def ledger(ledger_database: str):
    with connect(ledger_database) as ledger:
        for day in (COHORT_DATE, NEXT):
            add_cohort(ledger, cohort_date=day)
        ledger.execute("UPDATE lifecycle.cohorts SET audience_read_at = now()")
        yield ledger


def completed(ledger, run: str = "a run", days=(COHORT_DATE,)):
    return newly_completed(ledger, CAMPAIGN, days, run)


def test_cohort_is_complete_with_its_counts(ledger) -> None:
    for state in ("sent", "held", "rejected", "in_doubt"):
        add_sends(ledger, [state], state=state)
    add_sends(ledger, ["also sent"], state="sent")
    counts = {"users": 5, "sent": 2, "held": 1, "rejected": 1, "in_doubt": 1}
    assert completed(ledger) == {COHORT_DATE: counts}


@pytest.mark.parametrize("state", ["planned", "ready", "sending"])
def test_cohort_with_an_open_user_is_not_complete(ledger, state: str) -> None:
    add_sends(ledger, ["1"], state="sent")
    add_sends(ledger, ["2"], state=state)
    nobody = {"users": 0, "sent": 0, "held": 0, "rejected": 0, "in_doubt": 0}
    assert completed(ledger, days=(COHORT_DATE, NEXT)) == {NEXT: nobody}


def test_cohort_whose_audience_was_never_read_is_not_complete(ledger) -> None:
    ledger.execute("UPDATE lifecycle.cohorts SET audience_read_at = NULL")
    assert completed(ledger) == {}


def test_completion_is_told_once_but_to_the_same_run_again(ledger) -> None:
    add_sends(ledger, ["1"], state="sent")
    first = completed(ledger)
    assert first
    assert completed(ledger, "another run") == {}
    assert completed(ledger) == first


def test_cohort_is_complete_anew_when_the_held_were_mailed(ledger) -> None:
    add_sends(ledger, ["1"], state="held")
    assert completed(ledger)[COHORT_DATE]["sent"] == 0
    with without_triggers(ledger):
        ledger.execute("UPDATE lifecycle.sends SET state = 'sent', sent_at = now(), held_reason = NULL")
    assert completed(ledger, "another run")[COHORT_DATE]["sent"] == 1
