"""Daily limits on a real Postgres: exact over campaigns, runs and days, and the oldest cohort goes first."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import psycopg
import pytest

from lifecycle_emails.daily_limit import DailyLimit
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import Limited, filter_ledger, limit_rate
from lifecycle_emails.ledger.orders import suppress
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

CAMPAIGN = make_campaign(max_lateness_days=3)
DAY_BEFORE = COHORT_DATE - timedelta(days=1)
MANY = CapRule("many", 1000, timedelta(days=1))
ONE_PER_WEEK = CapRule("one_per_week", 1, timedelta(days=7))


def of_campaign(max_sends: int) -> DailyLimit:
    return DailyLimit(max_sends, "UTC", CAMPAIGN.id)


def overall(max_sends: int) -> DailyLimit:
    return DailyLimit(max_sends, "UTC", None)


def limit(
    ledger: psycopg.Connection,
    *limits: DailyLimit,
    campaign=CAMPAIGN,
    cohort_dates: tuple[date, ...] = (COHORT_DATE,),
    rule: CapRule = MANY,
) -> Limited:
    return limit_rate(
        ledger, campaign, [rule], cohort_dates, callbacks=("1 notify",), run="a run", max_groups=64,
        daily_limits=limits,
    )  # fmt: skip


def ready(ledger: psycopg.Connection, campaign_id: str = CAMPAIGN.id) -> list[str]:
    return [user for user, state in states(ledger, campaign_id).items() if state == "ready"]


def test_limit_lets_the_oldest_cohort_go_first_then_the_lowest_id(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=DAY_BEFORE)
        add_sends(ledger, ["a", "b"])
        add_sends(ledger, ["y", "z"], cohort_date=DAY_BEFORE)
        limited = limit(ledger, of_campaign(3), cohort_dates=(COHORT_DATE, DAY_BEFORE))
        assert states(ledger) == {"a": "ready", "b": "held/daily_limit", "y": "ready", "z": "ready"}
        [(detail,)] = ledger.execute("SELECT detail FROM lifecycle.sends WHERE user_id = 'b'").fetchall()
        assert ledger.execute("SELECT FROM lifecycle.alerts").fetchall() == []
    assert detail == "daily limit: day4_follow_up: 3 a day (UTC)"
    assert (limited.ready, limited.over_daily_limit, limited.capped) == (3, 1, 0)


def test_limit_holds_over_runs_and_the_held_are_judged_again_tomorrow(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, "abcde")
        for _ in range(3):
            filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
            limit(ledger, of_campaign(2))
        assert ready(ledger) == ["a", "b"]
        with without_triggers(ledger):
            ledger.execute(
                "UPDATE lifecycle.sends SET state = 'sent', sent_at = now() - interval '1 day'"
                " WHERE state = 'ready'"
            )
        limit(ledger, of_campaign(2))
        assert ready(ledger) == ["c", "d"]
        [(holds,)] = ledger.execute("SELECT count(*) FROM lifecycle.send_events").fetchall()
    assert holds == 3  # being held again tomorrow is no news


def test_limit_raised_or_removed_lets_the_held_go(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, "abc")
        limit(ledger, of_campaign(1))
        limit(ledger, of_campaign(2))
        assert ready(ledger) == ["a", "b"]
        limit(ledger)
        assert ready(ledger) == ["a", "b", "c"]


def test_limit_lowered_below_what_is_ready_takes_nothing_back(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, "abcd")
        limit(ledger, of_campaign(3))
        limit(ledger, of_campaign(1))
        assert ready(ledger) == ["a", "b", "c"]


@pytest.mark.parametrize("state", ["ready", "sending", "in_doubt", "sent"])
def test_limit_counts_every_state_that_may_be_a_mail_of_today(ledger_database: str, state: str) -> None:
    with connect(ledger_database) as ledger:
        for name in (CAMPAIGN.id, "another_campaign"):
            add_cohort(ledger, name)
        add_sends(ledger, ["1"], "another_campaign", state=state)
        add_sends(ledger, ["2", "3"])
        limit(ledger, of_campaign(2), overall(2))
        assert states(ledger) == {"2": "ready", "3": "held/daily_limit"}


def test_limit_of_a_campaign_leaves_the_mails_of_others_uncounted(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        for name in (CAMPAIGN.id, "another_campaign"):
            add_cohort(ledger, name)
        add_sends(ledger, ["1"], "another_campaign", state="sent")
        add_sends(ledger, ["2", "3"])
        limit(ledger, of_campaign(2))
        assert ready(ledger) == ["2", "3"]


def test_limit_counts_mails_of_cohorts_past_their_deadline(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=DAY_BEFORE)
        add_sends(ledger, ["1"], cohort_date=DAY_BEFORE, state="sent")
        with without_triggers(ledger):
            ledger.execute(
                "UPDATE lifecycle.cohorts SET not_after = greatest(window_end + interval '1 s',"
                " date_trunc('day', now(), 'UTC') - interval '5 min') WHERE cohort_date = %s",
                (DAY_BEFORE,),
            )
        add_sends(ledger, ["2"])
        limit(ledger, of_campaign(1))
        assert ready(ledger) == []


def test_limit_goes_by_the_day_of_its_time_zone(ledger_database: str) -> None:
    """A mail of two hours ago: of today where it is past three, of yesterday where the day has just begun."""
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="sent")
        with without_triggers(ledger):
            ledger.execute("UPDATE lifecycle.sends SET sent_at = now() - interval '2 hours'")
        add_sends(ledger, ["2"])
        limit(ledger, DailyLimit(1, zone_in_which_it_is(ledger, 3), CAMPAIGN.id))
        assert ready(ledger) == []
        limit(ledger, DailyLimit(1, zone_in_which_it_is(ledger, 0), CAMPAIGN.id))
        assert ready(ledger) == ["2"]


def zone_in_which_it_is(ledger: psycopg.Connection, hour: int) -> str:
    [(utc,)] = ledger.execute("SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::int").fetchall()
    ahead = hour - utc if hour - utc >= -12 else hour - utc + 24
    return f"Etc/GMT{-ahead:+d}"


def test_limit_gives_the_capped_and_the_suppressed_no_room(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        for name in (CAMPAIGN.id, "another_campaign"):
            add_cohort(ledger, name)
        add_sends(ledger, ["a"], "another_campaign", state="sent")
        add_sends(ledger, "abcd")
        suppress(ledger, user_id="b", reason="unsubscribed")
        limited = limit(ledger, of_campaign(1), rule=ONE_PER_WEEK)
        assert states(ledger) == {
            "a": "held/capped", "b": "held/suppressed", "c": "ready", "d": "held/daily_limit",
        }  # fmt: skip
    assert (limited.newly_refused, limited.capped, limited.over_daily_limit) == (1, 1, 1)


def test_user_held_by_the_limit_is_capped_suppressed_and_stale_like_any_other(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        for name in (CAMPAIGN.id, "another_campaign"):
            add_cohort(ledger, name)
        add_sends(ledger, "abc")
        limit(ledger, of_campaign(1))
        add_sends(ledger, ["b"], "another_campaign", state="sent")
        suppress(ledger, user_id="c", reason="unsubscribed")
        limit(ledger, rule=ONE_PER_WEEK)
        assert states(ledger) == {"a": "ready", "b": "held/capped", "c": "held/daily_limit"}
        let_time_pass(ledger, timedelta(days=8))
        filter_ledger(ledger, CAMPAIGN, [COHORT_DATE])
        limit(ledger)
        assert ready(ledger) == []


def test_sixteen_campaigns_at_once_share_exactly_the_limit(ledger_database: str) -> None:
    campaigns = [make_campaign(id=f"campaign_{number:02d}") for number in range(16)]
    with connect(ledger_database) as ledger:
        for number, campaign in enumerate(campaigns):
            add_cohort(ledger, campaign.id)
            add_sends(ledger, [f"{number}-{user}" for user in range(5)], campaign.id)
        together = threading.Barrier(len(campaigns))

        def run(campaign) -> None:
            with connect(ledger_database) as mine:
                together.wait()
                limit(mine, DailyLimit(2, "UTC", campaign.id), overall(9), campaign=campaign)

        with ThreadPoolExecutor(len(campaigns)) as pool:
            list(pool.map(run, campaigns))
        rows = ledger.execute("SELECT campaign, state::text FROM lifecycle.sends").fetchall()
    assert Counter(state for _, state in rows) == {"ready": 9, "held": 71}
    assert max(Counter(campaign for campaign, state in rows if state == "ready").values()) == 2
