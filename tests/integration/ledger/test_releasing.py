"""Releasing users and cohorts by a person's order: judged again, and never past suppression, cap or approvers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.actions import list_actions
from lifecycle_emails.ledger.approving import decide_volume
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.ledger.releasing import release
from lifecycle_emails.order import Action
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.orders_given import ADA, CAMPAIGN, audit, cohort_held_back, give, ordered
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
)


@pytest.fixture
def ledger(ledger_database: str):
    with connect(ledger_database) as connection:
        add_cohort(connection)
        yield connection


def test_two_operators_release_one_user_at_once_and_the_second_is_refused(ledger, ledger_database) -> None:
    add_sends(ledger, ["42"], state="rejected")
    barrier = Barrier(2)

    def one() -> str:
        with connect(ledger_database) as own:
            barrier.wait()
            try:
                return give(own, ordered(Action.RELEASE, "42")).result
            except LedgerError as refused:
                return str(refused)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(future.result() for future in [pool.submit(one), pool.submit(one)])
    assert said == [
        "1 released: they are judged again by the next run",
        "only rejected or capped users are released; user 42 is planned. Nothing was changed",
    ]
    assert ledger.execute(
        "SELECT count(*) FROM lifecycle.send_events WHERE to_state = 'planned'"
    ).fetchone() == (1,)
    assert len(list_actions(ledger)) == 1


def test_released_user_is_judged_again_by_suppression(ledger) -> None:
    add_sends(ledger, ["1", "2"], state="rejected")
    suppress(ledger, user_id="2", reason="asked")
    give(ledger, ordered(Action.RELEASE, "1", "2"))
    filter_ledger(ledger, make_campaign(), [COHORT_DATE])
    assert states(ledger) == {"1": "planned", "2": "held/suppressed"}


def test_released_user_of_a_drop_campaign_is_judged_again_by_the_cap(ledger) -> None:
    campaign = make_campaign(on_cap="drop")
    rules = [CapRule(name="weekly", max_sends=1, window=timedelta(days=7))]

    def limit() -> None:
        limit_rate(ledger, campaign, rules, [COHORT_DATE], callbacks=(), run="", max_groups=1)

    add_cohort(ledger, "other")
    long_ago = datetime.now(UTC) - timedelta(days=8)
    add_sends(ledger, ["1"], "other", state="sent")
    add_sends(ledger, ["2"], "other", state="sent", sent_at=long_ago, answer_due=long_ago)
    add_sends(ledger, ["1", "2"], state="held", held_reason="capped")
    limit()
    assert states(ledger) == {"1": "held/capped", "2": "held/capped"}
    give(ledger, ordered(Action.RELEASE, "1", "2"))
    limit()
    assert states(ledger) == {"1": "held/capped", "2": "ready"}


def test_release_is_told_in_history_with_its_actor(ledger) -> None:
    add_sends(ledger, ["1"], state="rejected")
    add_sends(ledger, ["2"], state="held", held_reason="capped")
    give(ledger, ordered(Action.RELEASE, "1", "2"), ADA)
    told = ledger.execute(
        "SELECT user_id, from_state, to_state, actor, detail FROM lifecycle.send_events ORDER BY user_id"
    ).fetchall()
    assert told == [
        ("1", "rejected", "planned", "ada", "released by hand: mended it"),
        ("2", "held", "planned", "ada", "released by hand: mended it"),
    ]


@pytest.mark.parametrize("state", ["sent", "ready", "planned", "held"])
def test_nobody_else_is_released_and_then_nobody_at_all(ledger, state: str) -> None:
    add_sends(ledger, ["1"], state="rejected")
    add_sends(ledger, ["2"], state=state)
    with pytest.raises(LedgerError, match=f"user 2 is {state}"):
        give(ledger, ordered(Action.RELEASE, "1", "2"))
    assert states(ledger)["1"] == "rejected"


def test_bounced_mail_is_not_released_by_anybody(ledger) -> None:
    add_sends(ledger, ["1"], state="rejected", queue_id="4QaBcD1z2y")
    with pytest.raises(LedgerError, match="It is never sent again"):
        give(ledger, ordered(Action.RELEASE, "1"))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never sent again"):
        ledger.execute("UPDATE lifecycle.sends SET state = 'planned'")


def test_release_says_which_cohorts_are_too_late(ledger) -> None:
    past = COHORT_DATE - timedelta(days=30)
    add_cohort(ledger, cohort_date=past, not_after=datetime.now(UTC) - timedelta(days=1))
    add_sends(ledger, ["1"], cohort_date=past, state="rejected")
    assert (
        "lifecycle extend day4_follow_up --cohort-from" in give(ledger, ordered(Action.RELEASE, "1")).result
    )


def test_release_without_a_reason_changes_nothing(ledger) -> None:
    add_sends(ledger, ["1"], state="rejected")
    with pytest.raises(LedgerError, match="give a reason; nothing was changed"):
        release(ledger, "day4_follow_up", ["1"], reason=" ")
    assert states(ledger)["1"] == "rejected"


def verdicts(ledger) -> list[tuple[str, str]]:
    return ledger.execute("SELECT volume_verdict, volume_decided_by FROM lifecycle.cohorts").fetchall()


def test_cohort_refused_for_its_size_is_released_and_audited(ledger) -> None:
    release = cohort_held_back(ledger)
    decide_volume(ledger, CAMPAIGN, COHORT_DATE, VolumeVerdict.REFUSED, "olaf", "looks wrong")
    assert give(ledger, release, ADA).result.startswith("cohort 2026-05-01 released")
    assert verdicts(ledger) == [("approved", "ada")]
    with pytest.raises(LedgerError, match="nothing was changed"):
        give(ledger, release)
    assert [action for _, action, _ in audit(ledger)] == ["release_cohort", "refuse_cohort"]


def test_cohort_that_awaits_approval_is_not_released_past_its_approvers(ledger) -> None:
    release = cohort_held_back(ledger)
    with pytest.raises(LedgerError, match="awaits approval; nothing was changed"):
        give(ledger, release, ADA)
    assert verdicts(ledger) == [("awaiting_approval", None)]


def test_cohort_that_awaited_approval_until_its_deadline_is_not_released_past_its_approvers(ledger) -> None:
    release = cohort_held_back(ledger)
    let_time_pass(ledger, timedelta(days=3))
    with pytest.raises(LedgerError, match="awaits approval; nothing was changed"):
        give(ledger, release, ADA)
    assert verdicts(ledger) == [("awaiting_approval", None)]


def test_refused_cohort_past_its_deadline_is_released_with_the_advice_to_extend(ledger) -> None:
    release = cohort_held_back(ledger)
    decide_volume(ledger, CAMPAIGN, COHORT_DATE, VolumeVerdict.REFUSED, "olaf", "looks wrong")
    let_time_pass(ledger, timedelta(days=3))
    assert "lifecycle extend day4_follow_up --cohort-from 2026-05-01" in give(ledger, release).result
