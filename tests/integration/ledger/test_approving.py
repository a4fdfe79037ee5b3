"""The volume breaker on a real Postgres: what is held back, and that limit and gate obey."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.ledger.approving import (
    awaiting_cohorts,
    check_volume,
    decide_volume,
)
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.batches import Group, due_rows, due_users, ready_groups
from lifecycle_emails.ledger.gate import Gate
from lifecycle_emails.ledger.judging import filter_ledger
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.gates import terms
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    let_time_pass,
    make_campaign,
    states,
)
from tests.integration.ledger.volumes import (
    APPROVED,
    AWAITING,
    CAMPAIGN,
    DAY_AFTER,
    ID,
    REFUSED,
    WITHIN,
    Ledger,
    check,
    decisions,
    hold_back,
    limit,
    read,
    read_history,
)


@pytest.mark.parametrize(
    ("history", "size", "verdict"),
    [
        ((10,) * 5, 31, AWAITING),
        ((10,) * 5, 30, WITHIN),
        ((10,) * 5, 3, AWAITING),
        ((10,) * 5, 4, WITHIN),
        ((10,) * 4, 0, WITHIN),
        ((10,) * 4, 10, WITHIN),
        ((), 11, AWAITING),
        ((10, 10, 10, 10, 5000), 12, WITHIN),
    ],
)
def test_volume_is_compared_with_the_median_of_the_weeks_before(
    ledger: Ledger, history: tuple[int, ...], size: int, verdict: VolumeVerdict
) -> None:
    read_history(ledger, *history)
    read(ledger, size)
    assert check(ledger) is verdict


def test_volume_is_not_compared_with_what_did_not_go_out_or_is_long_ago(ledger: Ledger) -> None:
    read_history(ledger, 900, *(10,) * 5)
    yesterday = COHORT_DATE - timedelta(days=1)
    assert check_volume(ledger, CAMPAIGN, [yesterday], run="run") == {yesterday: AWAITING}
    for days in range(29, 36):
        read(ledger, 900, COHORT_DATE - timedelta(days=days))
    read(ledger, 31)

    assert check(ledger) is AWAITING

    figures = ledger.execute(
        "SELECT volume_figures FROM lifecycle.cohorts WHERE cohort_date = %s", (COHORT_DATE,)
    ).fetchone()
    assert figures == (
        {
            "size": 31,
            "cohorts": 5,
            "median": 10.0,
            "lower": 4,
            "upper": 30,
            "fresh_until": None,
            "trouble": "too_many",
            "words": "too many: 31 users. The median of 5 cohorts of the 4 weeks before is 10; 4 to 30 go out unasked",
            "run": "run",
        },
    )


def test_volume_of_a_cohort_past_its_deadline_is_not_looked_at(ledger: Ledger) -> None:
    read(ledger, 5000)
    let_time_pass(ledger, timedelta(days=2))
    assert check(ledger) is None
    assert awaiting_cohorts(ledger, ID, [COHORT_DATE]) == ()


def test_volume_counts_a_cohort_with_the_largest_size_it_had(ledger: Ledger) -> None:
    """Those who left the audience later were mailed all the same."""
    days = [COHORT_DATE - timedelta(days=n) for n in range(5, 0, -1)]
    read_history(ledger, *(10,) * 5)
    check_volume(ledger, CAMPAIGN, days, run="run")
    read_history(ledger, *(1,) * 5)
    check_volume(ledger, CAMPAIGN, days, run="run")
    read(ledger, 9)
    assert check(ledger) is WITHIN


def test_volume_with_the_breaker_off_holds_nothing_back(ledger: Ledger) -> None:
    hold_back(ledger)
    off = make_campaign(volume=False)
    assert check(ledger, off) is WITHIN
    assert check(ledger) is AWAITING
    decide_volume(ledger, ID, COHORT_DATE, REFUSED, "ada", "a copy")
    assert check(ledger, off) is REFUSED


def test_volume_of_a_source_that_is_not_fresh_awaits_and_goes_on_once_it_is(ledger: Ledger) -> None:
    campaign = make_campaign(volume={"freshness": "fresh.sql"})
    read(ledger, 5)
    window_end = datetime(COHORT_DATE.year, COHORT_DATE.month, COHORT_DATE.day, tzinfo=UTC) + timedelta(
        days=1
    )
    assert check(ledger, campaign, fresh_until=window_end - timedelta(hours=1)) is AWAITING
    (awaiting,) = awaiting_cohorts(ledger, ID, [COHORT_DATE])
    assert awaiting.words == "not fresh: 5 users. The source's data are complete until: 2026-05-01 23:00 UTC"
    assert check(ledger, campaign, fresh_until=window_end) is WITHIN
    assert decisions(ledger) == []


def test_volume_of_a_cohort_seen_as_usual_is_asked_about_only_when_it_grows(ledger: Ledger) -> None:
    read_history(ledger, *(10,) * 5)
    read(ledger, 10)
    assert check(ledger) is WITHIN
    read(ledger, 0)
    assert check(ledger) is WITHIN
    read(ledger, 31)
    assert check(ledger) is AWAITING


def test_volume_of_an_approved_cohort_is_asked_about_again_for_latecomers_out_of_bounds(
    ledger: Ledger,
) -> None:
    read_history(ledger, *(10,) * 5)
    read(ledger, 500)
    assert check(ledger) is AWAITING
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
    read(ledger, 530)
    assert check(ledger) is APPROVED
    read(ledger, 531)
    assert check(ledger) is AWAITING


def test_limit_waits_for_the_next_look_at_a_cohort_that_another_run_has_made_grow(ledger: Ledger) -> None:
    """One run has looked, another extracts, and the first one's limit_rate comes before the other's look."""
    read_history(ledger, *(10,) * 5)
    read(ledger, 10)
    assert check(ledger) is WITHIN
    read(ledger, 500)
    add_sends(ledger, ["1"])

    assert limit(ledger).groups == ()
    assert states(ledger) == {"1": "planned"}

    assert check(ledger) is AWAITING
    read(ledger, 12)
    assert check(ledger) is WITHIN
    assert limit(ledger).ready == 1


def test_awaiting_cohort_holds_no_slots_and_the_others_go_on(ledger: Ledger) -> None:
    read_history(ledger, *(1,) * 5)
    read(ledger, 50)
    add_sends(ledger, ["1", "2"], state="ready")
    read(ledger, 1, DAY_AFTER)
    add_sends(ledger, ["9"], cohort_date=DAY_AFTER)

    verdicts = check_volume(ledger, CAMPAIGN, [DAY_AFTER, COHORT_DATE], run="run")
    limited = limit(ledger, COHORT_DATE, DAY_AFTER)

    assert verdicts == {COHORT_DATE: AWAITING, DAY_AFTER: WITHIN}
    assert states(ledger) == {"1": "planned", "2": "planned", "9": "ready"}
    assert limited.groups == (Group(((DAY_AFTER, 0),), 1),)


@pytest.mark.parametrize("refused", [False, True])
def test_rows_that_are_held_back_stay_planned_and_become_stale(ledger: Ledger, refused: bool) -> None:
    hold_back(ledger, "1")
    if refused:
        decide_volume(ledger, ID, COHORT_DATE, REFUSED, "ada", "a copy of the table")
    assert limit(ledger).groups == ()
    assert states(ledger) == {"1": "planned"}
    let_time_pass(ledger, timedelta(days=2))
    filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
    assert states(ledger) == {"1": "held/stale"}


def test_gate_answers_not_approved_and_the_row_stays_ready(ledger: Ledger, ledger_database: str) -> None:
    hold_back(ledger)
    add_sends(ledger, ["1"], state="ready")
    add_cohort(ledger, cohort_date=DAY_AFTER)
    add_sends(ledger, ["2"], cohort_date=DAY_AFTER, state="ready")
    gate = Gate(lambda: psycopg.connect(ledger_database), terms())
    try:
        assert gate.ask("1", uuid4(), bytes(16)) is Passage.NOT_APPROVED
        assert gate.ask("2", uuid4(), bytes(16)) is Passage.PASSED
        assert states(ledger) == {"1": "ready", "2": "sending"}
        assert due_users(ledger, ID, [(COHORT_DATE, 0)]) == {}
        assert due_rows(ledger, ID, [(COHORT_DATE, 0)]).now == 0
        assert ready_groups(ledger, CAMPAIGN, [COHORT_DATE], max_groups=9) == ()
        decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
        assert gate.ask("1", uuid4(), bytes(16)) is Passage.PASSED
    finally:
        gate.close(timeout=5)


def test_gate_still_holds_who_is_stale_in_a_cohort_that_is_held_back(
    ledger: Ledger, ledger_database: str
) -> None:
    hold_back(ledger)
    add_sends(ledger, ["1"], state="ready")
    let_time_pass(ledger, timedelta(days=2))
    gate = Gate(lambda: psycopg.connect(ledger_database), terms())
    try:
        assert gate.ask("1", uuid4(), bytes(16)) is Passage.STALE
    finally:
        gate.close(timeout=5)


def test_reconciliation_is_red_over_what_awaits_and_says_who_refused(ledger: Ledger) -> None:
    hold_back(ledger, "1")
    awaiting = reconcile(ledger, CAMPAIGN, [COHORT_DATE])
    (problem,) = awaiting.problems
    assert problem.startswith("cohort 2026-05-01 awaits approval (too many: 50 users. The median of 5")
    assert "awaiting_approval" in awaiting.table

    decide_volume(ledger, ID, COHORT_DATE, REFUSED, "ada", "a copy of the table")
    refused = reconcile(ledger, CAMPAIGN, [COHORT_DATE])

    assert refused.problems == ()
    assert refused.table.splitlines()[-1].startswith(
        "Cohort 2026-05-01 was refused by ada (too many: 50 users."
    )
    assert refused.table.splitlines()[-1].endswith(": a copy of the table")


def test_cohort_approved_while_its_group_is_sent_is_untouched_by_another_check(ledger: Ledger) -> None:
    hold_back(ledger, "1")
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
    limit(ledger)
    assert check(ledger) is APPROVED
    assert states(ledger) == {"1": "ready"}
