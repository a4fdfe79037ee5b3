"""Whoever could be mailed and passed the deadline of his cohort is told once, whoever held him; nobody else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.alerts import undelivered_alerts
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.extending import extend, look_at_extension
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.lateness import hold_late
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.upkeep import keep_up
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
    without_triggers,
)

BEFORE_ANY_TICK = datetime(2026, 5, 5, tzinfo=UTC)


@pytest.mark.parametrize("holder", ["a run", "the gate"])
def test_ready_user_whom_another_than_maintenance_held_at_the_deadline_is_told_once(
    ledger_database: str, holder: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        let_time_pass(ledger, timedelta(days=2))
        if holder == "a run":
            filter_ledger(ledger, make_campaign(), [COHORT_DATE])
        else:
            with open_gate(ledger_database) as gate:
                assert gate.ask("1", uuid4(), HASH) is Passage.STALE
        assert states(ledger) == {"1": "held/stale"}
        assert [alert_of_round(ledger), alert_of_round(ledger)] == [told(1), None]


def test_ready_user_whom_a_run_with_a_shorter_deadline_held_is_told_when_no_later_run_can_mail_him(
    ledger_database: str,
) -> None:
    campaign = make_campaign(max_lateness_days=5)
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["left", "mailed later"], state="ready")
        add_sends(ledger, ["never judged"], state="planned")
        assert hold_late(ledger, campaign, [COHORT_DATE], 0) == 3
        assert alert_of_round(ledger) is None
        with without_triggers(ledger):
            ledger.execute(
                "UPDATE lifecycle.sends SET state = 'sent', held_reason = NULL, sent_at = now()"
                " WHERE user_id = 'mailed later'"
            )
        let_time_pass(ledger, timedelta(days=2))
        assert [alert_of_round(ledger), alert_of_round(ledger)] == [told(1), None]


def test_user_held_again_after_an_extension_is_told_again(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        let_time_pass(ledger, timedelta(days=2))
        assert alert_of_round(ledger) == told(1)
        look = look_at_extension(ledger, "day4_follow_up", COHORT_DATE, COHORT_DATE, 2)
        extend(ledger, look, reason="the provider was down", actor="ada")
        filter_ledger(ledger, make_campaign(), [COHORT_DATE])
        limit_rate(
            ledger, make_campaign(), [CapRule("many", 1000, timedelta(days=1))], [COHORT_DATE],
            callbacks=(), run="a run", max_groups=9,
        )  # fmt: skip
        assert (states(ledger), alert_of_round(ledger)) == ({"1": "ready"}, None)
        let_time_pass(ledger, timedelta(days=9))
        assert alert_of_round(ledger) == told(1)


def test_user_whom_the_gate_held_just_before_his_cohort_was_closed_is_told_by_the_next_round(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        let_time_pass(ledger, timedelta(days=2))
        with open_gate(ledger_database) as gate:
            assert gate.ask("1", uuid4(), HASH) is Passage.STALE
        assert ledger.execute(query("close_cohorts"), {"campaign": "day4_follow_up"}).rowcount == 1
        assert alert_of_round(ledger) == told(1)


def test_user_put_back_by_a_later_run_that_did_not_judge_him_is_counted_once(ledger_database: str) -> None:
    campaign = make_campaign(max_lateness_days=5)
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        hold_late(ledger, campaign, [COHORT_DATE], 0)
        filter_ledger(ledger, campaign, [COHORT_DATE])
        assert states(ledger) == {"1": "planned"}
        let_time_pass(ledger, timedelta(days=2))
        assert [alert_of_round(ledger), alert_of_round(ledger)] == [told(1), None]


@pytest.mark.parametrize("holder", ["a run", "maintenance"])
def test_backfill_past_the_deadline_is_held_and_surprises_nobody(ledger_database: str, holder: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger, not_after=datetime.now(UTC) - timedelta(days=2))
        add_sends(ledger, ["1", "2"])
        if holder == "a run":
            filter_ledger(ledger, make_campaign(), [COHORT_DATE])
        assert alert_of_round(ledger) is None
        assert states(ledger) == {"1": "held/stale", "2": "held/stale"}


def test_planned_in_time_is_told_though_the_audience_was_read_again_after_the_deadline(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"])
        let_time_pass(ledger, timedelta(days=2))
        add_sends(ledger, ["found too late"])
        ledger.execute("UPDATE lifecycle.cohorts SET audience_read_at = now()")
        assert alert_of_round(ledger) == told(1)


def alert_of_round(ledger: psycopg.Connection[Any]) -> dict[str, Any] | None:
    """Facts of the alert of a round of maintenance about whom it was too late for; None when it told of nobody."""
    before = {alert.alert_id for alert in undelivered_alerts(ledger, None)}
    keep_up(ledger, (), now=BEFORE_ANY_TICK)
    alerts = [alert for alert in undelivered_alerts(ledger, None) if alert.alert_id not in before]
    assert len(alerts) <= 1
    assert {alert.kind for alert in alerts} <= {"expired"}
    return alerts[0].facts if alerts else None


def told(users: int) -> dict[str, Any]:
    return {"users": users, "cohort_dates": {COHORT_DATE.isoformat(): users}}
