"""Reconciliation: green only when nothing due is left, nobody is forgotten, told or doubtful."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from lifecycle_emails.ledger.alerts import create_alert
from lifecycle_emails.ledger.orders import halt, resume
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.throttle import state_throttle, take_grants
from lifecycle_emails.throttle import Throttle
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
)

CAMPAIGN = make_campaign()


def problems(ledger: psycopg.Connection, *, throttled: bool = False) -> str:
    return "\n".join(reconcile(ledger, CAMPAIGN, [COHORT_DATE], throttled=throttled).problems)


def test_finished_run_has_no_problems_and_its_sums_close(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2"], state="sent")
        add_sends(ledger, ["3"], state="held", held_reason="capped")
        add_sends(ledger, ["4"], state="rejected")
        add_sends(ledger, ["5"], state="ready", not_before=datetime.now(UTC) + timedelta(hours=2))
        result = reconcile(ledger, CAMPAIGN, [COHORT_DATE])
    assert result.problems == ()
    assert result.waiting_until is None
    assert result.counts == {
        "users": 5, "planned": 0, "ready": 1, "sending": 0, "sent": 2, "held": {"capped": 1}, "rejected": 1, "in_doubt": 0,
    }  # fmt: skip
    assert "2026-05-01" in result.table
    assert "1 capped" in result.table


def test_held_are_counted_by_every_reason_there_is_so_that_a_gauge_comes_down(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["3"], state="held", held_reason="capped")
        reasons = ledger.execute("SELECT unnest(enum_range(NULL::lifecycle.held_reason))::text").fetchall()
        held = reconcile(ledger, CAMPAIGN, [COHORT_DATE]).held
    assert held == {reason: int(reason == "capped") for (reason,) in reasons}


def test_answer_still_due_is_waited_for_and_an_overdue_one_is_in_doubt(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="sending")
        waiting = reconcile(ledger, CAMPAIGN, [COHORT_DATE]).waiting_until
        assert waiting is not None
        assert waiting > datetime.now(UTC)
        let_time_pass(ledger, timedelta(minutes=11))
        result = reconcile(ledger, CAMPAIGN, [COHORT_DATE])
        assert states(ledger) == {"1": "in_doubt"}
    assert result.waiting_until is None
    assert "users 1." in "\n".join(result.problems)


@pytest.mark.parametrize(
    ("state", "message"),
    [("ready", "1 users are ready and were not mailed"), ("planned", "1 users were not judged")],
)
def test_open_rows_are_a_problem(ledger_database: str, state: str, message: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state=state)
        assert message in problems(ledger)


def test_halt_is_named_as_the_reason(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        halt(ledger, reason="wrong template", actor="ada")
        assert "sending is halted (all campaigns) by ada" in problems(ledger)


def test_undelivered_alert_is_a_problem(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        alert = create_alert(
            ledger, "limit_exceeded", CAMPAIGN.id, None, run="r", facts={}, callbacks=["1 x"]
        )
        assert alert in problems(ledger)


def test_user_of_the_audience_without_a_row_is_a_problem(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        ledger.execute("UPDATE lifecycle.cohorts SET audience_size = 5, audience_without_row = 2")
        assert "2 users of the audience have no row" in problems(ledger)


def test_alert_that_maintenance_delivers_is_no_problem_of_the_run(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        create_alert(
            ledger, "missing_cohorts", CAMPAIGN.id, None, run="r", facts={}, callbacks=["maintenance"]
        )
        assert problems(ledger) == ""


def test_daily_maximum_of_the_throttle_is_said_and_who_waits_for_it_is_no_problem(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        assert (
            "1 users are ready and were not mailed" in reconcile(ledger, CAMPAIGN, [COHORT_DATE]).problems[0]
        )
        state_throttle(ledger, CAMPAIGN.smtp_conn_id, Throttle(mails_per_day=2))
        assert len(reconcile(ledger, CAMPAIGN, [COHORT_DATE], throttled=True).problems) == 1
        take_grants(ledger, CAMPAIGN.smtp_conn_id, 2)
        result = reconcile(ledger, CAMPAIGN, [COHORT_DATE], throttled=True)
        assert result.problems == ()
        assert "2 of 2 mails of" in result.table.splitlines()[-1]
        assert "the daily maximum is reached: who is ready stays so" in result.table
        halt(ledger, reason="wrong template", actor="ada")
        assert "sending is halted (all campaigns) by ada" in problems(ledger, throttled=True)
        resume(ledger, reason="mended", actor="ada")
        taken_out_of_the_file = reconcile(ledger, CAMPAIGN, [COHORT_DATE], throttled=False)
        assert len(taken_out_of_the_file.problems) == 1
        assert "mails of" not in taken_out_of_the_file.table


def test_users_who_are_due_again_later_are_named_and_no_problem(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        again = datetime.now(UTC) + timedelta(minutes=30)
        add_sends(ledger, ["1", "2"], state="ready", not_before=again)
        result = reconcile(ledger, CAMPAIGN, [COHORT_DATE])
        assert result.problems == ()
        [(deadline,)] = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall()
        assert result.table.splitlines()[-1] == (
            f"2 users were refused for now and are due again, the last at {again:%Y-%m-%d %H:%M} UTC; a later "
            f"scheduled run takes them before their deadline, {deadline:%Y-%m-%d %H:%M} UTC"
        )


def test_day_of_the_throttle_that_ended_meanwhile_is_named_as_a_cause(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        state_throttle(ledger, CAMPAIGN.smtp_conn_id, Throttle(mails_per_day=2))
        assert "or it left them to the throttle's next day, which has begun" in problems(
            ledger, throttled=True
        )
        assert "next day" not in problems(ledger)
