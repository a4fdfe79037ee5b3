"""Who may let a cohort of unusual size go, in the ledger: decisions, answers, and what the database refuses."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.approving import (
    Answered,
    awaiting_cohorts,
    decide_volume,
    record_answer,
)
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.rows import COHORT_DATE
from tests.integration.ledger.volumes import (
    APPROVED,
    AWAITING,
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
)


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


def test_refused_cohort_that_is_looked_at_again_stays_refused(ledger: Ledger) -> None:
    hold_back(ledger)
    decide_volume(ledger, ID, COHORT_DATE, REFUSED, "ada", "a bot net")
    assert check(ledger) is REFUSED
    assert [row[2] for row in decisions(ledger)] == ["refused"]


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
