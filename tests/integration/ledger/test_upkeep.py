"""Upkeep: doubts surfaced and told once, the stale held, gaps found, detail dropped, keys never."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from lifecycle_emails.ledger.alerts import undelivered_alerts
from lifecycle_emails.ledger.upkeep import keep_up, oldest_open_rows
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
)

BEFORE_ANY_TICK = datetime(2026, 5, 5, tzinfo=UTC)


def test_unanswered_send_becomes_in_doubt_after_answer_due_and_is_told_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="sending")
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 0
        let_time_pass(ledger, timedelta(minutes=11))
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 1
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 0
        [alert] = undelivered_alerts(ledger, "day4_follow_up")
        assert states(ledger) == {"1": "in_doubt"}
    assert (alert.kind, alert.facts["user_ids"], alert.facts["cohort_dates"]) == (
        "in_doubt",
        ["1"],
        ["2026-05-01"],
    )


def test_past_the_deadline_planned_and_ready_are_stale_and_the_cohort_closes(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="planned")
        add_sends(ledger, ["2"], state="ready")
        add_sends(ledger, ["3"], state="held", held_reason="capped")
        add_sends(ledger, ["4"], state="sending")
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).stale == 0
        let_time_pass(ledger, timedelta(days=2))
        upkeep = keep_up(ledger, (), now=BEFORE_ANY_TICK)
        assert states(ledger) == {"1": "held/stale", "2": "held/stale", "3": "held/capped", "4": "in_doubt"}
    assert (upkeep.stale, upkeep.in_doubt, upkeep.closed) == (2, 1, 1)


def test_gap_between_cohorts_is_told_once(ledger_database: str) -> None:
    campaign = make_campaign()
    with connect(ledger_database) as ledger:
        for day in (1, 2, 5):
            add_cohort(ledger, cohort_date=date(2026, 5, day))
        now = datetime(2026, 5, 10, 6, 30, tzinfo=UTC)  # the tick of cohort 6 May is within its grace
        assert keep_up(ledger, [campaign], now=now).missing == 2
        assert keep_up(ledger, [campaign], now=now).missing == 0
        [alert] = undelivered_alerts(ledger, campaign.id)
        assert alert.facts == {"cohort_dates": ["2026-05-03", "2026-05-04"]}
        assert keep_up(ledger, [campaign], now=now + timedelta(hours=4)).missing == 1


def test_campaign_that_never_ran_has_no_gaps(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        assert keep_up(ledger, [make_campaign()], now=datetime.now(UTC)).missing == 0


def test_retention_drops_detail_of_old_cohorts_and_never_a_key(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(
            ledger,
            cohort_date=COHORT_DATE + timedelta(days=1),
            not_after=datetime.now(UTC) + timedelta(days=90),
        )
        add_sends(ledger, ["old"], state="sent", detail="dot: 250", queue_id="Q1", address_hash=bytes(16))
        add_sends(
            ledger, ["new"], cohort_date=COHORT_DATE + timedelta(days=1), state="sent", detail="dot: 250"
        )
        let_time_pass(ledger, timedelta(days=2))
        keep_up(ledger, (), now=BEFORE_ANY_TICK)
        let_time_pass(ledger, timedelta(days=31))
        keep_up(ledger, (), now=BEFORE_ANY_TICK, keep=timedelta(days=30))
        rows = ledger.execute(
            "SELECT user_id, state::text, detail, queue_id FROM lifecycle.sends ORDER BY 1"
        ).fetchall()
    assert rows == [("new", "sent", "dot: 250", None), ("old", "sent", None, None)]


def test_oldest_open_row_comes_down_when_the_last_cohort_closes(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"])
        let_time_pass(ledger, timedelta(hours=7))
        [(_, seconds)] = oldest_open_rows(ledger)
        assert seconds >= 7 * 3600
        let_time_pass(ledger, timedelta(days=2))
        keep_up(ledger, (), now=datetime.now(UTC))
        assert ledger.execute("SELECT closed_at IS NOT NULL FROM lifecycle.cohorts").fetchall() == [(True,)]
        assert oldest_open_rows(ledger) == [("day4_follow_up", 0.0)]
