"""filter_ledger and limit_rate on a real Postgres: who is held and why, and the cap exact under concurrency."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import Limited, filter_ledger, limit_rate
from lifecycle_emails.ledger.orders import suppress, unsuppress
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
ONE_PER_DAY = CapRule("one_per_day", 1, timedelta(days=1))
THREE_PER_WEEK = CapRule("three_per_week", 3, timedelta(days=7))


def limit(
    ledger: psycopg.Connection,
    *rules: CapRule,
    campaign=CAMPAIGN,
    cohort_dates: tuple[date, ...] = (COHORT_DATE,),
    callbacks: tuple[str, ...] = ("1 notify",),
    max_groups: int = 1024,
) -> Limited:
    return limit_rate(
        ledger, campaign, rules, cohort_dates, callbacks=callbacks, run="a run", max_groups=max_groups
    )


def test_filter_holds_the_suppressed_and_counts_the_sent(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2", "3"])
        add_sends(ledger, ["4"], state="sent")
        suppress(ledger, user_id="1", reason="unsubscribed")
        suppress(ledger, user_id="2", campaign_id="day4_follow_up", reason="asked for it")
        suppress(ledger, user_id="3", campaign_id="another_campaign", reason="not this one")
        filtered = filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
        assert states(ledger) == {"1": "held/suppressed", "2": "held/suppressed", "3": "planned", "4": "sent"}
    assert (filtered.held, filtered.already_sent, filtered.to_judge) == ({"suppressed": 2}, 1, 1)


def test_rows_to_judge_leave_out_nobody_whom_the_judgement_holds(ledger_database: str) -> None:
    """The filter looks at these rows only; sorting others out must never be more than a short cut."""
    late = COHORT_DATE - timedelta(days=1)
    of_address, of_another = b"a" * 16, b"b" * 16
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=late, not_after=datetime(2026, 5, 2, tzinfo=UTC))
        add_sends(ledger, ["named", "named here", "named elsewhere", "free"])
        add_sends(ledger, ["address"], state="ready", address_hash=of_address)
        add_sends(ledger, ["another address"], address_hash=of_another)
        add_sends(ledger, ["late"], cohort_date=late)
        suppress(ledger, user_id="named", reason="unsubscribed")
        suppress(ledger, user_id="named here", campaign_id="day4_follow_up", reason="asked for it")
        suppress(ledger, user_id="named elsewhere", campaign_id="another_campaign", reason="not this one")
        ledger.execute(
            "INSERT INTO lifecycle.suppressions (address_hash, reason, suppressed_by) VALUES (%s, 'x', 'x')",
            (of_address,),
        )
        held, to_judge = (
            {user for (user,) in ledger.execute(f"SELECT user_id FROM lifecycle.judgement WHERE {which}")}
            for which in (
                "hold IS NOT NULL",
                "row_at IN (SELECT lifecycle.rows_to_judge('day4_follow_up', ARRAY[date '2026-05-01', '2026-04-30']))",
            )
        )
    assert held == {"named", "named here", "address", "late"}
    assert held <= to_judge
    assert "free" not in to_judge


def test_filter_judges_again_who_is_no_longer_suppressed(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"])
        suppress(ledger, user_id="1", reason="unsubscribed")
        filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
        assert unsuppress(ledger, user_id="1", reason="subscribed again")
        filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
        assert states(ledger) == {"1": "planned"}


def test_filter_holds_what_is_past_the_deadline_and_leaves_the_gated_alone(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"])
        add_sends(ledger, ["2"], state="ready")
        add_sends(ledger, ["3"], state="sending")
        let_time_pass(ledger, timedelta(days=2))
        filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
        assert states(ledger) == {"1": "held/stale", "2": "held/stale", "3": "sending"}


def test_limit_counts_slots_over_all_campaigns_and_says_which_rule(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, "another_campaign")
        add_sends(ledger, ["free", "full"])
        add_sends(ledger, ["full"], "another_campaign", state="sent")
        limited = limit(ledger, ONE_PER_DAY, THREE_PER_WEEK)
        assert states(ledger) == {"free": "ready", "full": "held/capped"}
        detail = ledger.execute(
            "SELECT detail FROM lifecycle.sends WHERE user_id = 'full' AND state = 'held'"
        ).fetchone()
        alerts = ledger.execute("SELECT kind, campaign, callbacks, facts FROM lifecycle.alerts").fetchall()
    assert detail == ("frequency cap: one_per_day",)
    assert (limited.ready, limited.capped, limited.newly_refused) == (1, 1, 1)
    [(kind, campaign, callbacks, facts)] = alerts
    assert (kind, campaign, callbacks) == ("limit_exceeded", "day4_follow_up", ["1 notify"])
    assert facts["users"] == 1
    assert facts["user_ids"] == ["full"]
    assert facts["rules"] == [{"rule": "one_per_day", "max_sends": 1, "window_seconds": 86400, "users": 1}]
    assert [slot["campaign"] for slot in facts["sends_in_window"]["full"]] == ["another_campaign"]


@pytest.mark.parametrize("state", ["ready", "sending", "in_doubt", "sent"])
def test_limit_counts_every_state_that_holds_a_slot(ledger_database: str, state: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, "another_campaign")
        add_sends(ledger, ["1"], "another_campaign", state=state)
        add_sends(ledger, ["1"])
        limit(ledger, ONE_PER_DAY)
        assert states(ledger) == {"1": "held/capped"}


@pytest.mark.parametrize("state", ["planned", "held", "rejected"])
def test_limit_ignores_states_without_a_slot(ledger_database: str, state: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, "another_campaign")
        add_sends(ledger, ["1"], "another_campaign", state=state)
        add_sends(ledger, ["1"])
        limit(ledger, ONE_PER_DAY)
        assert states(ledger) == {"1": "ready"}


def test_deferred_user_is_ready_once_the_window_has_rolled_on_and_a_dropped_one_never(
    ledger_database: str,
) -> None:
    dropping = make_campaign(id="dropping", on_cap="drop")
    with connect(ledger_database) as ledger:
        for name in ("day4_follow_up", "another_campaign", "dropping"):
            add_cohort(ledger, name)
        add_sends(ledger, ["1"], "another_campaign", state="sent")
        add_sends(ledger, ["1"])
        add_sends(ledger, ["1"], "dropping")
        limit(ledger, CapRule("one_per_hour", 1, timedelta(hours=1)))
        limit(ledger, CapRule("one_per_hour", 1, timedelta(hours=1)), campaign=dropping)
        let_time_pass(ledger, timedelta(hours=1, seconds=1))
        limit(ledger, CapRule("one_per_hour", 1, timedelta(hours=1)), campaign=dropping)
        limited = limit(ledger, CapRule("one_per_hour", 1, timedelta(hours=1)))
        assert (states(ledger), states(ledger, "dropping")) == ({"1": "ready"}, {"1": "held/capped"})
    assert limited.ready == 1


def test_refusal_within_the_window_of_an_earlier_one_makes_no_second_alert(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, "another_campaign")
        add_sends(ledger, ["1"], "another_campaign", state="sent")
        add_sends(ledger, ["1"])
        assert limit(ledger, ONE_PER_DAY).alert_id is not None
        assert limit(ledger, ONE_PER_DAY).alert_id is None


def test_limit_repeated_returns_the_same_groups(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2"], batch=0)
        add_sends(ledger, ["3"], batch=1)
        first = limit(ledger, ONE_PER_DAY)
        assert limit(ledger, ONE_PER_DAY).groups == first.groups
    assert [(group.batches, group.size) for group in first.groups] == [
        (((COHORT_DATE, 0), (COHORT_DATE, 1)), 3)
    ]


def test_groups_never_exceed_the_most_that_airflow_maps(ledger_database: str) -> None:
    campaign = make_campaign(batch_size=1)
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        for batch in range(50):
            add_sends(ledger, [f"{batch:02d}"], batch=batch)
        limited = limit(ledger, ONE_PER_DAY, campaign=campaign, max_groups=7)
    assert len(limited.groups) <= 7
    assert sum(group.size for group in limited.groups) == 50


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_sixteen_campaigns_at_once_reserve_exactly_what_the_cap_allows(
    ledger_database: str, isolation: str
) -> None:
    campaigns = [make_campaign(id=f"campaign_{number:02d}") for number in range(16)]
    with connect(ledger_database) as ledger:
        ledger.execute(
            f"ALTER DATABASE {ledger.info.dbname} SET default_transaction_isolation = '{isolation}'"
        )
        for campaign in campaigns:
            add_cohort(ledger, campaign.id)
            add_sends(ledger, ["1", "2"], campaign.id)
        together = threading.Barrier(len(campaigns))

        def run(campaign) -> None:
            with connect(ledger_database) as mine:
                together.wait()
                limit(mine, THREE_PER_WEEK, campaign=campaign)

        with ThreadPoolExecutor(len(campaigns)) as pool:
            list(pool.map(run, campaigns))
        rows = ledger.execute("SELECT user_id, state::text FROM lifecycle.sends").fetchall()
        refusals = ledger.execute(
            "SELECT user_id, count(*) FROM lifecycle.cap_refusals GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert Counter(rows) == {("1", "ready"): 3, ("1", "held"): 13, ("2", "ready"): 3, ("2", "held"): 13}
    assert refusals == [("1", 1), ("2", 1)]


def test_refusal_that_nobody_was_told_of_does_not_silence_another_campaign(ledger_database: str) -> None:
    quiet = make_campaign(id="quiet")
    with connect(ledger_database) as ledger:
        for name in ("quiet", "another_campaign", "day4_follow_up"):
            add_cohort(ledger, name)
        add_sends(ledger, ["1"], "another_campaign", state="sent")
        add_sends(ledger, ["1"], "quiet")
        add_sends(ledger, ["1"])
        limit(ledger, ONE_PER_DAY, campaign=quiet, callbacks=())
        assert limit(ledger, ONE_PER_DAY).alert_id is not None
        assert limit(ledger, ONE_PER_DAY).alert_id is None
