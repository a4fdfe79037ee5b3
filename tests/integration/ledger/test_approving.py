"""The volume breaker on a real Postgres: what is held back, who may let it go, and that limit and gate obey."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.approving import (
    Answered,
    awaiting_cohorts,
    check_volume,
    decide_volume,
    record_answer,
)
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.batches import Group, due_rows, due_users, ready_groups
from lifecycle_emails.ledger.gate import Gate
from lifecycle_emails.ledger.judging import Limited, filter_ledger, limit_rate
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.gates import terms
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
)

WITHIN, AWAITING, APPROVED, REFUSED = VolumeVerdict
CAMPAIGN = make_campaign(volume={"factor": 3, "floor": 2, "without_history": 10})
ID = CAMPAIGN.id
NO_CAP = (CapRule("no_cap", 1000, timedelta(days=1)),)
DAY_AFTER = COHORT_DATE + timedelta(days=1)

Ledger = psycopg.Connection[Any]


@pytest.fixture
def ledger(ledger_database: str) -> Iterator[Ledger]:
    with connect(ledger_database) as connection:
        yield connection


def read(ledger: Ledger, size: int, day: date = COHORT_DATE) -> None:
    """What an extract leaves: a cohort, and how many users its audience had."""
    add_cohort(ledger, cohort_date=day)
    ledger.execute(
        "UPDATE lifecycle.cohorts SET audience_size = %s, audience_read_at = now() WHERE cohort_date = %s",
        (size, day),
    )


def read_history(ledger: Ledger, *sizes: int) -> None:
    """Cohorts of the days before, the newest first."""
    for days, size in enumerate(sizes, start=1):
        read(ledger, size, COHORT_DATE - timedelta(days=days))


def check(ledger: Ledger, campaign: Campaign = CAMPAIGN, **arguments: Any) -> VolumeVerdict | None:
    return check_volume(ledger, campaign, [COHORT_DATE], run="run", **arguments).get(COHORT_DATE)


def limit(ledger: Ledger, *days: date) -> Limited:
    days = days or (COHORT_DATE,)
    return limit_rate(ledger, CAMPAIGN, NO_CAP, days, callbacks=(), run="run", max_groups=9)


def decisions(ledger: Ledger) -> list[tuple[Any, ...]]:
    return ledger.execute(
        "SELECT cohort_date, from_verdict::text, verdict::text, decided_by, by_a_person, reason, size"
        " FROM lifecycle.volume_decisions ORDER BY decision_id"
    ).fetchall()


def hold_back(ledger: Ledger, *users: str) -> None:
    """A cohort fifty times the usual size, awaiting approval, with some of its users planned."""
    read_history(ledger, 1, 1, 1, 1, 1)
    read(ledger, 50)
    add_sends(ledger, users)
    assert check(ledger) is AWAITING


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


def test_decision_lets_the_cohort_go_and_is_written_down(ledger: Ledger) -> None:
    hold_back(ledger, "1")
    decide_volume(ledger, ID, COHORT_DATE, REFUSED, "ada", " looks like a copy ")
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "bob", "it is a fair")
    assert limit(ledger).ready == 1
    assert decisions(ledger) == [
        (COHORT_DATE, "awaiting_approval", "refused", "ada", True, "looks like a copy", 50),
        (COHORT_DATE, "refused", "approved", "bob", True, "it is a fair", 50),
    ]


@pytest.mark.parametrize(
    ("day", "verdict", "actor", "reason", "said"),
    [
        (DAY_AFTER, APPROVED, "ada", "a fair", "has no cohort 2026-05-02; nothing was changed"),
        (COHORT_DATE, WITHIN, "ada", "a fair", "awaits approval: approve or refuse it; nothing was changed"),
        (COHORT_DATE, APPROVED, "ada", " ", "give a name and a reason; nothing was changed"),
        (COHORT_DATE, APPROVED, "", "a fair", "give a name and a reason; nothing was changed"),
    ],
)
def test_decision_that_cannot_be_says_why_and_changes_nothing(
    ledger: Ledger, day: date, verdict: VolumeVerdict, actor: str, reason: str, said: str
) -> None:
    hold_back(ledger)
    with pytest.raises(LedgerError, match=said):
        decide_volume(ledger, ID, day, verdict, actor, reason)
    assert check(ledger) is AWAITING
    assert decisions(ledger) == []


def test_decision_of_the_second_of_two_people_changes_nothing(ledger: Ledger) -> None:
    hold_back(ledger)
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
    with pytest.raises(LedgerError, match=r"was approved by ada at .* UTC; nothing was changed"):
        decide_volume(ledger, ID, COHORT_DATE, REFUSED, "bob", "a copy")
    read(ledger, 1, DAY_AFTER)
    with pytest.raises(LedgerError, match="is not held back; nothing was changed"):
        decide_volume(ledger, ID, DAY_AFTER, APPROVED, "bob", "a copy")


def test_answer_is_recorded_once_with_who_gave_it(ledger: Ledger) -> None:
    hold_back(ledger)
    for _ in range(2):  # the task is cleared
        answered = record_answer(ledger, ID, [(COHORT_DATE, 50)], APPROVED, actor="ada", reason="asked")
        assert answered == Answered((COHORT_DATE,), (), ())
    assert decisions(ledger) == [(COHORT_DATE, "awaiting_approval", "approved", "ada", True, "asked", 50)]


def test_answer_that_never_came_refuses_and_only_a_person_releases(ledger: Ledger) -> None:
    hold_back(ledger)
    late = record_answer(ledger, ID, [(COHORT_DATE, 50)], REFUSED, actor=None, reason="nobody answered")
    assert late == Answered((), (COHORT_DATE,), ())
    approved = record_answer(ledger, ID, [(COHORT_DATE, 50)], APPROVED, actor="ada", reason="asked")
    assert approved.approved == ()
    assert approved.unchanged[0].startswith(f"cohort {COHORT_DATE} was refused by nobody at ")
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
    cleared = record_answer(ledger, ID, [(COHORT_DATE, 50)], REFUSED, actor=None, reason="nobody answered")
    assert cleared.approved == (COHORT_DATE,)
    assert [row[1:5] for row in decisions(ledger)] == [
        ("awaiting_approval", "refused", "nobody", False),
        ("refused", "approved", "ada", True),
    ]


def test_answer_to_fewer_users_than_there_are_by_now_is_no_approval(ledger: Ledger) -> None:
    hold_back(ledger)
    read(ledger, 60)
    assert check(ledger) is AWAITING
    answered = record_answer(ledger, ID, [(COHORT_DATE, 50)], APPROVED, actor="ada", reason="asked")
    assert answered == Answered((), (), (f"cohort {COHORT_DATE} has 60 users by now, and 50 were shown",))
    assert [cohort.size for cohort in awaiting_cohorts(ledger, ID, [COHORT_DATE])] == [60]


DECIDED = "volume_decided_at = now(), volume_decided_by = 'ada', volume_reason = 'so'"
UNDECIDED = "volume_decided_at = NULL, volume_decided_by = NULL, volume_reason = NULL"


@pytest.mark.parametrize(
    ("standing", "change"),
    [
        (None, f"volume_verdict = 'approved', volume_size = 1, {DECIDED}"),
        (AWAITING, f"volume_verdict = 'approved', {DECIDED}"),
        (AWAITING, f"volume_verdict = 'refused', {DECIDED}"),
        (AWAITING, "volume_verdict = NULL, volume_size = NULL"),
        (REFUSED, f"volume_verdict = 'approved', {DECIDED}"),
        (REFUSED, f"volume_verdict = 'within', {UNDECIDED}"),
        (REFUSED, f"volume_verdict = 'awaiting_approval', volume_size = 99, {UNDECIDED}"),
        (REFUSED, "volume_decided_by = 'bob'"),
        (APPROVED, f"volume_verdict = 'refused', {DECIDED}"),
        (APPROVED, f"volume_verdict = 'within', {UNDECIDED}"),
        (APPROVED, f"volume_verdict = 'awaiting_approval', {UNDECIDED}"),
        (APPROVED, "volume_size = 99"),
    ],
)
def test_database_refuses_a_verdict_without_a_decision(
    ledger: Ledger, standing: VolumeVerdict | None, change: str
) -> None:
    read(ledger, 50)
    if standing is not None:
        assert check(ledger) is AWAITING
    if standing in (APPROVED, REFUSED):
        decide_volume(ledger, ID, COHORT_DATE, standing, "ada", "so")
    before = ledger.execute("SELECT * FROM lifecycle.cohorts").fetchall()
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refused:
        ledger.execute(f"UPDATE lifecycle.cohorts SET {change}")
    assert refused.value.diag.constraint_name == "volume_verdict_is_legal"
    assert ledger.execute("SELECT * FROM lifecycle.cohorts").fetchall() == before


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE lifecycle.volume_decisions SET reason = 'x'", "volume_decision_is_never_rewritten"),
        ("DELETE FROM lifecycle.volume_decisions", "volume_decision_is_never_rewritten"),
        (
            (
                "INSERT INTO lifecycle.volume_decisions (campaign, cohort_date, decided_by, by_a_person, reason,"
                " from_verdict, verdict, size, figures) VALUES ('day4_follow_up', '2026-05-01', 'nobody', false, 'x',"
                " 'awaiting_approval', 'approved', 1, '{}')"
            ),
            "only_a_person_approves",
        ),
        (
            (
                "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone, offset_days,"
                " not_after, volume_verdict, volume_size) VALUES ('x', '2026-05-01', '2026-05-01', '2026-05-02', 'UTC', 4,"
                " '2026-05-09', 'within', 1)"
            ),
            "cohort_starts_without_a_volume_verdict",
        ),
    ],
)
def test_database_keeps_decisions_as_they_were(ledger: Ledger, statement: str, constraint: str) -> None:
    hold_back(ledger)
    decide_volume(ledger, ID, COHORT_DATE, APPROVED, "ada", "a fair")
    with pytest.raises(psycopg.errors.IntegrityError) as refused:
        ledger.execute(statement)
    assert refused.value.diag.constraint_name == constraint


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
