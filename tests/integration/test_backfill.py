"""A backfill's runs, without Airflow: nothing late before a person extends the deadlines, then each user once."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest

from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.extending import extend, look_at_extension
from lifecycle_emails.ledger.judging import limit_rate
from lifecycle_emails.ledger.orders import suppress
from tests.daily_run import NO_CAP, DailyRun, today
from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, states

DAYS = 10
ONE_PER_WEEK = (CapRule("one_per_week", 1, timedelta(days=7)),)


def late_days() -> list[date]:
    """Cohorts that are past the campaign's deadline, oldest first."""
    return [today() - timedelta(days=20 + number) for number in reversed(range(DAYS))]


def backfill(run: DailyRun, days: list[date], rules=NO_CAP) -> None:
    for day in days:
        run.send(run.plan(day, rules=rules))


def test_backfill_of_late_days_mails_nobody_before_the_extension_and_everybody_once_after(
    daily_run: DailyRun, smtp_server
) -> None:
    days = late_days()
    for number, day in enumerate(days):
        daily_run.add_users(2 * number, 2 * number + 1, day=day)
    suppress(daily_run.ledger, user_id="7", reason="unsubscribed")

    backfill(daily_run, days)
    assert len(smtp_server.accepted) == 0
    assert set(daily_run.states().values()) == {"held/stale"}

    approved = look_at_extension(daily_run.ledger, "welcome", days[0], days[-1], 2)
    assert approved.users == 2 * DAYS
    extend(daily_run.ledger, approved, reason="the source was late", actor="ada")
    backfill(daily_run, days)
    expected = {str(user) for user in range(2 * DAYS)} - {"7"}
    assert {user for user, state in daily_run.states().items() if state == "sent"} == expected
    assert len(smtp_server.accepted) == len(expected)

    backfill(daily_run, days)
    assert len(smtp_server.accepted) == len(expected)


def test_backfilled_mails_count_in_todays_cap(daily_run: DailyRun, smtp_server) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(1, day=yesterday)
    backfill(daily_run, [yesterday], ONE_PER_WEEK)
    assert len(smtp_server.accepted) == 1
    another = daily_run.campaign.model_copy(update={"id": "another"})
    add_cohort(daily_run.ledger, another.id)
    add_sends(daily_run.ledger, ["1", "2"], another.id)
    limit_rate(
        daily_run.ledger, another, ONE_PER_WEEK, [COHORT_DATE], callbacks=(), run="today's", max_groups=1
    )
    assert states(daily_run.ledger, another.id) == {"1": "held/capped", "2": "ready"}


@pytest.mark.parametrize("rounds", [1, 3])
def test_backfill_keeps_the_daily_limit_over_all_its_runs(
    daily_run: DailyRun, smtp_server, rounds: int
) -> None:
    daily_run.include.write_campaign(max_sends_per_day=4)
    days = [today() - timedelta(days=number) for number in (2, 1, 0)]
    for number, day in enumerate(days):
        daily_run.add_users(*range(10 * number, 10 * number + 3), day=day)
    for _ in range(rounds):
        backfill(daily_run, days)
    assert len(smtp_server.accepted) == 4
    assert Counter(daily_run.states().values()) == {"sent": 4, "held/daily_limit": 5}
    assert {user for user, state in daily_run.states().items() if state == "sent"} == {"0", "1", "2", "10"}
