"""Grants of a throttle on a real Postgres: exact under races, never twice, never beyond a day's limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.ledger.gate import uptime
from lifecycle_emails.ledger.throttle import (
    LONGEST_WAIT_SECONDS,
    give_back_connections,
    lease_connections,
    renew_connections,
    slow_down,
    state_throttle,
    take_grants,
    throttle_now,
)
from lifecycle_emails.throttle import Throttle, WarmUp
from tests.cutting_proxy import CuttingProxy

SMTP = "lifecycle_smtp"


@pytest.fixture
def ledger(ledger_database: str):
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        yield connection


def last_grant(ledger) -> datetime:
    (at,) = ledger.execute("SELECT last_grant_at FROM lifecycle.throttles").fetchone()
    return at


def at_once(count: int, work: Callable[[int], None]) -> None:
    barrier = threading.Barrier(count)
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except Exception as error:  # noqa: BLE001  (the test shows it)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_grants_begin_now_and_follow_each_other_at_the_rate(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=10))
    before = uptime()
    first = take_grants(ledger, SMTP, 4)
    assert (first.count, first.spacing, first.refused_by) == (4, 0.1, None)
    assert before <= first.first <= uptime()
    second = take_grants(ledger, SMTP, 1)
    assert second.first >= first.first + 4 * first.spacing - (uptime() - before)
    assert throttle_now(ledger, SMTP).granted_today == 5


def test_grants_of_sixteen_at_once_are_all_different_moments(ledger, ledger_database: str) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=100, mails_per_day=301))
    counts: list[int] = []

    def take(number: int) -> None:
        with psycopg.connect(ledger_database, autocommit=True) as mine:
            counts.extend(take_grants(mine, SMTP, 1 + number % 4).count for _ in range(10))

    began = ledger.execute("SELECT clock_timestamp()").fetchone()[0]
    at_once(16, take)
    assert sum(counts) == 301
    assert last_grant(ledger) - began >= timedelta(seconds=3)
    now = throttle_now(ledger, SMTP)
    assert (now.granted_today, now.day_is_used_up) == (301, True)
    assert "301 of 301 mails of" in now.words(SMTP)


def test_nobody_is_granted_a_moment_further_off_than_five_seconds(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=2))
    taken = take_grants(ledger, SMTP, 100)
    assert (taken.count, taken.refused_by) == (LONGEST_WAIT_SECONDS * 2 + 1, "rate")
    again = take_grants(ledger, SMTP, 1)
    assert (again.count, again.refused_by) == (0, "rate")
    assert again.ask_again == last_grant(ledger) + timedelta(seconds=1 / 2)
    assert again.ask_again > datetime.now(UTC) + timedelta(seconds=5)


def test_day_is_that_of_the_connections_own_time_zone_and_its_end_divides_a_group(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=10, mails_per_day=5, timezone="Asia/Kathmandu"))
    taken = take_grants(ledger, SMTP, 3)
    assert taken.count == 3
    (midnight,) = ledger.execute(
        "SELECT (((now() AT TIME ZONE 'Asia/Kathmandu')::date + 1)::timestamp AT TIME ZONE 'Asia/Kathmandu')"
    ).fetchone()
    taken = take_grants(ledger, SMTP, 3)
    assert (taken.count, taken.refused_by, taken.ask_again) == (2, "daily_maximum", midnight)
    assert take_grants(ledger, SMTP, 3).count == 0
    assert midnight.astimezone(UTC).minute == 15


def test_grants_stop_at_midnight_and_the_next_day_is_counted_anew(ledger) -> None:
    """A zone whose midnight is nearly now cannot be had, so the day that was counted is made yesterday."""
    state_throttle(ledger, SMTP, Throttle(mails_per_day=5))
    assert take_grants(ledger, SMTP, 9).count == 5
    ledger.execute("UPDATE lifecycle.throttles SET day = day - 1")
    assert take_grants(ledger, SMTP, 9).count == 5
    assert take_grants(ledger, SMTP, 1).refused_by == "daily_maximum"


@pytest.mark.parametrize(
    ("day", "limit"),
    [(date(2026, 10, 1), 50), (date(2026, 11, 1), 50), (date(2026, 11, 3), 500), (date(2026, 11, 4), 1000)],
)
def test_warm_up_gives_each_day_its_own_maximum(ledger, day: date, limit: int) -> None:
    warm_up = WarmUp(first_day=date(2026, 11, 1), mails_per_day=[50, 100, 500])
    state_throttle(ledger, SMTP, Throttle(mails_per_day=1000, warm_up=warm_up))
    said = ledger.execute("SELECT lifecycle.daily_maximum(t, %s) FROM lifecycle.throttles AS t", [day])
    assert said.fetchone() == (limit,)


def test_warm_up_of_today_bounds_the_grants(ledger) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    state_throttle(ledger, SMTP, Throttle(warm_up=WarmUp(first_day=yesterday, mails_per_day=[1, 4, 9])))
    assert take_grants(ledger, SMTP, 100).count == 4


def test_what_was_granted_survives_new_terms_and_is_never_taken_back(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=1, mails_per_day=10))
    take_grants(ledger, SMTP, 4)
    state_throttle(ledger, SMTP, Throttle(mails_per_second=100, mails_per_day=5))
    assert take_grants(ledger, SMTP, 4).count == 1
    for change in ("granted = 0", "last_grant_at = '-infinity'"):
        with pytest.raises(psycopg.IntegrityError, match="a grant is never taken back"):
            ledger.execute(f"UPDATE lifecycle.throttles SET {change}")
    with pytest.raises(psycopg.IntegrityError, match="counts would begin anew"):
        ledger.execute("DELETE FROM lifecycle.throttles")


def test_day_that_a_new_time_zone_puts_back_is_not_counted_anew(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_day=5, timezone="Pacific/Kiritimati"))
    assert take_grants(ledger, SMTP, 5).count == 5
    state_throttle(ledger, SMTP, Throttle(mails_per_day=5, timezone="Pacific/Pago_Pago"))
    refused = take_grants(ledger, SMTP, 5)
    assert (refused.count, refused.refused_by) == (0, "daily_maximum")
    assert throttle_now(ledger, SMTP).day_is_used_up


def test_moments_granted_one_by_one_are_not_nearer_than_the_rate_allows(ledger) -> None:
    """A time stamp has microseconds; a third of one that is dropped each time would be mails in an hour."""
    state_throttle(ledger, SMTP, Throttle(mails_per_second=300))
    take_grants(ledger, SMTP, 1200)  # so that no moment below is now
    before = last_grant(ledger)
    for _ in range(30):
        assert take_grants(ledger, SMTP, 1).count == 1
    assert last_grant(ledger) - before >= timedelta(seconds=30 / 300)


def test_edited_rate_holds_from_the_last_grant_on(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=0.001))
    take_grants(ledger, SMTP, 1)
    before = last_grant(ledger)
    assert take_grants(ledger, SMTP, 1).count == 0
    state_throttle(ledger, SMTP, Throttle(mails_per_second=2))
    granted = take_grants(ledger, SMTP, 1)
    assert granted.count == 1
    assert granted.first <= uptime() + 1 / 2
    assert last_grant(ledger) - before >= timedelta(seconds=1 / 2)
    state_throttle(ledger, SMTP, Throttle(mails_per_second=0.1))
    refused = take_grants(ledger, SMTP, 1)
    assert (refused.count, refused.refused_by) == (0, "rate")
    assert refused.ask_again > datetime.now(UTC) + timedelta(seconds=9)


def clock_was_ahead(ledger, days: int) -> None:
    """Leave behind what a grant leaves that was taken while the server's clock was wrong."""
    ledger.execute(
        "UPDATE lifecycle.throttles SET last_grant_at = now() + make_interval(days => %(days)s),"
        " day = (now() AT TIME ZONE 'UTC')::date + %(days)s",
        {"days": days},
    )


def test_grant_of_a_clock_that_was_far_ahead_keeps_nobody_waiting(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=10, mails_per_day=4))
    take_grants(ledger, SMTP, 2)
    clock_was_ahead(ledger, 30)
    today = datetime.now(UTC).date()
    now = throttle_now(ledger, SMTP)
    assert (now.day, now.granted_today) == (today, 2)
    granted = take_grants(ledger, SMTP, 3)
    assert (granted.count, granted.refused_by) == (2, "daily_maximum")
    assert granted.first <= uptime() + 1 / 10
    assert take_grants(ledger, SMTP, 1).refused_by == "daily_maximum"
    ledger.execute("UPDATE lifecycle.throttles SET day = day - 1")
    assert take_grants(ledger, SMTP, 1).count == 1


def test_day_that_a_wrong_clock_used_up_is_counted_as_today_and_tomorrow_begins_anew(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=10, mails_per_day=4))
    take_grants(ledger, SMTP, 4)
    clock_was_ahead(ledger, 30)
    refused = take_grants(ledger, SMTP, 1)
    assert (refused.count, refused.refused_by) == (0, "daily_maximum")
    assert refused.ask_again < datetime.now(UTC) + timedelta(days=1)
    ledger.execute("UPDATE lifecycle.throttles SET day = day - 1")
    assert take_grants(ledger, SMTP, 1).count == 1


def test_connection_with_a_low_rate_comes_free_after_one_spacing_when_the_clock_was_ahead(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=0.1))
    take_grants(ledger, SMTP, 1)
    clock_was_ahead(ledger, 30)
    first = take_grants(ledger, SMTP, 1)
    assert (first.count, first.refused_by) == (0, "rate")
    assert first.ask_again < datetime.now(UTC) + timedelta(seconds=10)
    assert take_grants(ledger, SMTP, 1).ask_again == first.ask_again


@pytest.mark.parametrize(("ahead", "back_to"), [("50 s", "49 s"), ("70 s", "-1 s")])
def test_last_grant_is_put_back_only_where_a_wrong_clock_put_it_and_not_before_now(
    ledger, ahead: str, back_to: str
) -> None:
    """A clock put back by seconds makes nobody's moment anew: what it granted is still being sent."""
    state_throttle(ledger, SMTP, Throttle(mails_per_second=10))
    put = "UPDATE lifecycle.throttles SET last_grant_at = now() + %s::interval"
    ledger.execute(put, [ahead])
    before = last_grant(ledger)
    with pytest.raises(psycopg.IntegrityError, match="a grant is never taken back"):
        ledger.execute(put, [back_to])
    granted = take_grants(ledger, SMTP, 1)
    if ahead == "50 s":
        assert (granted.count, last_grant(ledger)) == (0, before)
    else:
        assert granted.count == 1
        assert granted.first <= uptime() + 1 / 10


def test_rate_that_was_slowed_stays_a_rate_where_the_clock_was_put_back(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=16))
    slow_down(ledger, SMTP, "421 4.7.0 too fast")
    ledger.execute("UPDATE lifecycle.throttles SET slowed_at = now() + interval '10 min'")
    assert take_grants(ledger, SMTP, 2).spacing == pytest.approx(1 / 8)
    assert throttle_now(ledger, SMTP).effective_rate == 8
    assert slow_down(ledger, SMTP, "421 4.7.0 too fast") == 4


def test_complaints_of_the_provider_halve_the_rate_once_and_it_recovers(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_second=16))
    assert slow_down(ledger, SMTP, "421 4.7.0 too fast") == 8
    assert slow_down(ledger, SMTP, "421 4.7.0 too fast") is None  # the same complaint
    assert take_grants(ledger, SMTP, 1).spacing == pytest.approx(1 / 8, rel=0.01)
    assert "slowed to 8 since the provider said '421 4.7.0 too fast'" in throttle_now(ledger, SMTP).words(
        SMTP
    )
    for minutes, rate in ((5, 12), (9, 15.2), (20, 16)):
        ledger.execute(
            "UPDATE lifecycle.throttles SET slowed_at = now() - make_interval(mins => %s)", [minutes]
        )
        assert throttle_now(ledger, SMTP).effective_rate == pytest.approx(rate, rel=0.01)
    for _ in range(20):
        ledger.execute("UPDATE lifecycle.throttles SET slowed_at = now() - interval '11 s'")
        slow_down(ledger, SMTP, "421 4.7.0 too fast")
    assert 16 / 64 <= throttle_now(ledger, SMTP).effective_rate < 16 / 32


def test_complaint_without_a_rate_changes_nothing(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(connections=3))
    assert slow_down(ledger, SMTP, "421 4.7.0 too fast") is None
    assert throttle_now(ledger, SMTP).words(SMTP) == "Throttle of lifecycle_smtp: connections only"


def test_connections_of_sixteen_tasks_at_once_are_no_more_than_there_are(
    ledger, ledger_database: str
) -> None:
    state_throttle(ledger, SMTP, Throttle(connections=10))
    leased: list[int] = []

    def lease(_: int) -> None:
        with psycopg.connect(ledger_database, autocommit=True) as mine:
            leased.append(lease_connections(mine, SMTP, uuid4(), 3))

    at_once(16, lease)
    assert sorted(leased, reverse=True)[:5] == [3, 3, 3, 1, 0]
    assert sum(leased) == 10


def test_connections_of_a_killed_task_come_free_and_its_lease_is_not_renewed(ledger) -> None:
    state_throttle(ledger, SMTP, Throttle(connections=4))
    killed, other = uuid4(), uuid4()
    assert lease_connections(ledger, SMTP, killed, 4) == 4
    assert renew_connections(ledger, killed)
    assert lease_connections(ledger, SMTP, other, 1) == 0
    ledger.execute("UPDATE lifecycle.throttle_connections SET leased_until = now() - interval '1 s'")
    assert not renew_connections(ledger, killed)
    assert lease_connections(ledger, SMTP, other, 3) == 3
    give_back_connections(ledger, other)
    assert lease_connections(ledger, SMTP, uuid4(), 9) == 4


def test_grants_whose_commit_is_answered_with_a_rollback_are_worth_nothing(
    ledger, ledger_database: str, postgres_server
) -> None:
    state_throttle(ledger, SMTP, Throttle(mails_per_day=5))
    with CuttingProxy(postgres_server.port) as proxy:
        url = ledger_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with psycopg.connect(url, autocommit=True) as mine:
            proxy.deny_next_commit()
            with pytest.raises(psycopg.OperationalError, match="roll-back"):
                take_grants(mine, SMTP, 2)
    assert throttle_now(ledger, SMTP).granted_today == 2, (
        "what may have been granted is lost, not given twice"
    )
