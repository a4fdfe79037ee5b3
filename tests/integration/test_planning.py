"""Planning cohorts from a real users table: everybody once, whatever changes between two runs."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError, SourceError
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.dry_run import dry_run
from lifecycle_emails.ledger.planning import extract_cohort, frozen_cohort, planned_cohort
from tests.daily_run import DailyRun, today
from tests.integration.ledger.rows import let_time_pass

ONE_PER_20_HOURS = (CapRule("one_per_20_hours", 1, timedelta(hours=20)),)


def test_cohort_is_planned_once_in_batches_in_order_of_id(daily_run: DailyRun) -> None:
    daily_run.include.write_campaign(batch_size=2)
    daily_run.add_users(5, 1, 3, 2, 4)
    daily_run.add_users(9, day=today() + timedelta(days=1))
    extracted = daily_run.extract()
    assert (extracted.found, extracted.new, extracted.known, extracted.moved) == (5, 5, 0, 0)
    again = daily_run.extract()
    assert (again.found, again.new, again.known) == (5, 0, 5)
    rows = daily_run.ledger.execute("SELECT user_id, batch FROM lifecycle.sends ORDER BY 1").fetchall()
    assert rows == [("1", 0), ("2", 0), ("3", 1), ("4", 1), ("5", 2)]


def test_latecomer_is_found_and_goes_into_a_new_batch(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, 2)
    daily_run.send(daily_run.plan())
    daily_run.add_users(3)
    later = daily_run.plan(today() + timedelta(days=1) - timedelta(days=1), with_earlier=True)
    assert [group.batches for group in later.groups] == [((today(), 1),)]
    daily_run.send(later)
    assert daily_run.states() == {"1": "sent", "2": "sent", "3": "sent"}


def test_scheduled_run_finds_a_row_inserted_late_into_an_earlier_cohort(
    daily_run: DailyRun, smtp_server
) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(1, day=yesterday)
    daily_run.send(daily_run.plan(yesterday))
    daily_run.add_users(2, day=yesterday)
    daily_run.add_users(3)
    daily_run.send(daily_run.plan(with_earlier=True))
    assert daily_run.states() == {"1": "sent", "2": "sent", "3": "sent"}
    assert max(smtp_server.copies().values()) == 1


def test_manual_run_takes_its_own_cohort_only(daily_run: DailyRun) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.extract(yesterday)
    daily_run.add_users(2, day=yesterday)
    assert daily_run.extract().cohort_dates == (today(),)
    assert daily_run.states() == {}


def test_week_of_pause_is_caught_up_or_stale(daily_run: DailyRun, smtp_server) -> None:
    """Deadline three days: of a week without a run, the newest three cohorts go out, the older ones are stale."""
    days = [today() - timedelta(days=back) for back in range(8, -1, -1)]
    for number, day in enumerate(days):
        daily_run.add_users(number, day=day)
    daily_run.plan(days[0])
    daily_run.send(daily_run.plan(with_earlier=True))
    states = daily_run.states()
    assert Counter(states.values()) == {"sent": 3, "held/stale": 6} or Counter(states.values()) == {
        "sent": 4,
        "held/stale": 5,
    }
    assert states["8"] == "sent"
    assert states["1"] == "held/stale"
    planned = daily_run.ledger.execute("SELECT count(*) FROM lifecycle.cohorts").fetchone()
    assert planned == (9,)


def test_user_capped_today_is_sent_by_a_later_scheduled_run(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1)
    daily_run.send(daily_run.plan())
    daily_run.ledger.execute("SET session_replication_role = replica")
    daily_run.ledger.execute("UPDATE lifecycle.sends SET campaign = 'another_campaign'")
    daily_run.ledger.execute("SET session_replication_role = origin")
    assert daily_run.plan(rules=ONE_PER_20_HOURS).capped == 1
    let_time_pass(daily_run.ledger, timedelta(hours=21))
    # the same run a day later: its own cohort is the next day's, the capped user's is an earlier one
    daily_run.send(daily_run.plan(today() + timedelta(days=1), rules=ONE_PER_20_HOURS, with_earlier=True))
    row = daily_run.ledger.execute(
        "SELECT state::text FROM lifecycle.sends WHERE campaign = 'welcome'"
    ).fetchall()
    assert row == [("sent",)]
    assert smtp_server.copies() == {("welcome", "1"): 2}  # one of them in the other campaign's name


@pytest.mark.parametrize("timezone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_changed_zone_leaves_no_gap_and_mails_nobody_twice(
    daily_run: DailyRun, smtp_server, timezone: str
) -> None:
    first = today() - timedelta(days=2)
    start = datetime.combine(first, datetime.min.time(), UTC)
    for hour in range(72):
        daily_run.add_users(hour, created_at=start + timedelta(hours=hour))
    daily_run.send(daily_run.plan(first))
    daily_run.include.write_campaign(timezone=timezone)
    for day in range(1, 4):
        daily_run.send(daily_run.plan(first + timedelta(days=day)))
    windows = daily_run.ledger.execute(
        "SELECT window_start, window_end FROM lifecycle.cohorts ORDER BY cohort_date"
    ).fetchall()
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    assert max(smtp_server.copies().values()) == 1
    assert len(smtp_server.accepted) == sum(
        windows[0][0] <= start + timedelta(hours=hour) < windows[-1][1] for hour in range(72)
    )


def test_changed_offset_and_cron_leave_the_frozen_cohort_and_mail_nobody_twice(
    daily_run: DailyRun, smtp_server, caplog: pytest.LogCaptureFixture
) -> None:
    daily_run.add_users(1)
    daily_run.send(daily_run.plan())
    before = frozen_cohort(daily_run.ledger, "welcome", today())
    daily_run.include.write_campaign(offset_days=5, schedule="0 23 * * *")
    daily_run.add_users(2)
    daily_run.send(daily_run.plan())
    assert frozen_cohort(daily_run.ledger, "welcome", today()) == before
    assert "offset_days is 4 for this cohort; the campaign file now says 5" in caplog.text
    assert smtp_server.copies() == {("welcome", "1"): 1, ("welcome", "2"): 1}


def test_user_who_left_the_audience_is_held_and_comes_back(daily_run: DailyRun) -> None:
    daily_run.add_users(1, 2)
    daily_run.plan()
    daily_run.source.execute(
        "UPDATE users SET email = 'x' || email, created_at = created_at WHERE user_id = 2"
    )
    daily_run.source.execute("CREATE TABLE gone AS SELECT * FROM users WHERE user_id = 1")
    daily_run.source.execute("DELETE FROM users WHERE user_id = 1")
    daily_run.extract()
    assert daily_run.states() == {"1": "held/left_audience", "2": "ready"}
    daily_run.source.execute("INSERT INTO users SELECT * FROM gone")
    daily_run.extract()
    assert daily_run.states() == {"1": "planned", "2": "ready"}


def test_user_returned_twice_plans_nothing(daily_run: DailyRun) -> None:
    daily_run.include.write(
        "audiences/users.sql",
        "SELECT user_id, email, full_name FROM users CROSS JOIN generate_series(1, 2)\n"
        "WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s",
    )
    daily_run.add_users(1)
    with pytest.raises(SourceError, match="returns user 1 more than once"):
        daily_run.extract()
    assert daily_run.states() == {}
    assert daily_run.ledger.execute("SELECT count(*) FROM lifecycle.cohorts").fetchone() == (0,)


def test_address_as_user_id_plans_nothing(daily_run: DailyRun) -> None:
    daily_run.include.write(
        "audiences/users.sql",
        "SELECT email AS user_id, email, full_name FROM users\n"
        "WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s",
    )
    daily_run.add_users(1)
    with pytest.raises(SourceError, match="returns a user_id with an @ in it; nothing was planned"):
        daily_run.extract()
    assert daily_run.states() == {}


def test_query_that_fails_in_the_middle_plans_nothing(daily_run: DailyRun) -> None:
    daily_run.include.write(
        "audiences/users.sql",
        "SELECT user_id, email, full_name, 1 / (user_id - 3) AS boom FROM users\n"
        "WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s AND 1 / (user_id - 3) < 9",
    )
    daily_run.add_users(1, 2, 3, 4)
    with pytest.raises(SourceError, match="division by zero"):
        daily_run.extract()
    assert daily_run.states() == {}


def test_two_extracts_of_two_cohorts_at_once_in_opposite_order_do_not_deadlock(daily_run: DailyRun) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(*range(1, 200))
    daily_run.add_users(*range(200, 400), day=yesterday)

    def extract(days: tuple[date, date]) -> None:
        with (
            psycopg.connect(daily_run.ledger_url, autocommit=True) as ledger,
            psycopg.connect(daily_run.source_url, autocommit=True) as source,
        ):
            for day in days:
                extract_cohort(
                    ledger, source, daily_run.campaign, daily_run.audience, day, with_earlier=False
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(extract, [(today(), yesterday), (yesterday, today())]))
    assert Counter(daily_run.states().values()) == {"planned": 399}


def test_dry_run_counts_and_changes_nothing(daily_run: DailyRun) -> None:
    daily_run.add_users(*range(1, 11))
    tables = ("cohorts", "sends", "batches", "send_events", "alerts", "cap_refusals")
    result = dry_run(
        daily_run.ledger, daily_run.source, daily_run.campaign, daily_run.audience, today(),
        with_earlier=False, upto="filter",
    )  # fmt: skip
    assert (result.extracted.new, result.filtered.to_judge if result.filtered else None) == (10, 10)
    for table in tables:
        assert daily_run.ledger.execute(f"SELECT count(*) FROM lifecycle.{table}").fetchone() == (0,)


@pytest.mark.parametrize(("upto", "filtered"), [("extract", False), ("filter", True)])
def test_dry_run_goes_as_far_as_it_is_asked_to(daily_run: DailyRun, upto: str, filtered: bool) -> None:
    daily_run.add_users(1)
    tried = dry_run(
        daily_run.ledger, daily_run.source, daily_run.campaign, daily_run.audience, today(),
        with_earlier=False, upto=upto,
    )  # fmt: skip
    assert (tried.filtered is not None) == filtered
    assert daily_run.states() == {}


def test_cohort_that_was_never_planned_is_one_clear_error(daily_run: DailyRun) -> None:
    with pytest.raises(LedgerError, match=f"no cohort {today()} of welcome; run its extract_cohort"):
        planned_cohort(daily_run.ledger, "welcome", today())


@pytest.mark.parametrize("count", [0, 1, 1025])
def test_cohort_of_any_size_closes_its_sums(daily_run: DailyRun, smtp_server, count: int) -> None:
    daily_run.add_users(*range(count))
    daily_run.send(daily_run.plan())
    assert Counter(daily_run.states().values()) == ({"sent": count} if count else {})
    assert len(smtp_server.accepted) == count


def test_user_with_a_broken_address_is_held_when_planned_and_takes_no_slot(daily_run: DailyRun) -> None:
    daily_run.add_users(1)
    daily_run.add_users(2, email="no address at all")
    daily_run.add_users(3, email=" user3@example.com")  # the sender would not trim it either
    limited = daily_run.plan()
    assert daily_run.states() == {"1": "ready", "2": "held/invalid_address", "3": "held/invalid_address"}
    assert limited.ready == 1
    details = daily_run.ledger.execute(
        "SELECT detail FROM lifecycle.sends WHERE state = 'held' ORDER BY user_id"
    ).fetchall()
    assert details == [("the address holds a space or a control character",)] * 2


def test_broken_address_is_judged_again_only_once_it_is_mended(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, email="no address at all")
    daily_run.plan()
    daily_run.source.execute("UPDATE users SET email = 'still none'")
    assert daily_run.plan().ready == 0
    events = "SELECT to_state::text, held_reason::text FROM lifecycle.send_events"
    assert daily_run.ledger.execute(events).fetchall() == [("held", "invalid_address")]
    daily_run.source.execute("UPDATE users SET email = 'user1@example.com'")
    daily_run.send(daily_run.plan())
    assert daily_run.states() == {"1": "sent"}
    assert smtp_server.copies() == {("welcome", "1"): 1}


def test_address_that_breaks_and_is_mended_again_after_planning_goes_out(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.add_users(1)
    limited = daily_run.plan()
    daily_run.source.execute("UPDATE users SET email = 'broken'")
    daily_run.send(limited)
    assert daily_run.states() == {"1": "held/invalid_address"}
    daily_run.source.execute("UPDATE users SET email = 'user1@example.com'")
    daily_run.send(daily_run.plan())
    assert smtp_server.copies() == {("welcome", "1"): 1}


def test_capped_user_whose_address_breaks_is_held_for_that(daily_run: DailyRun) -> None:
    daily_run.add_users(1)
    daily_run.plan()
    daily_run.ledger.execute("UPDATE lifecycle.sends SET state = 'held', held_reason = 'capped'")
    daily_run.source.execute("UPDATE users SET email = 'broken'")
    daily_run.extract()
    assert daily_run.states() == {"1": "held/invalid_address"}


def test_planning_reads_each_row_by_its_key_whatever_the_statistics_say(daily_run: DailyRun) -> None:
    """Once, whoever had no usable address was looked for among all users of the cohort: hours for a million."""
    size = 400
    daily_run.add_users(*range(size), email="no address")
    before = rows_of_sends_read(daily_run)
    daily_run.plan()
    daily_run.source.execute("UPDATE users SET email = 'user' || user_id || '@example.com'")
    daily_run.plan()
    daily_run.source.execute("DELETE FROM users WHERE user_id % 2 = 0")
    daily_run.plan()
    assert Counter(daily_run.states().values()) == {"held/left_audience": size // 2, "ready": size // 2}
    assert rows_of_sends_read(daily_run) - before < 100 * size < size * size


def rows_of_sends_read(run: DailyRun) -> int:
    run.ledger.execute("SELECT pg_stat_force_next_flush()")
    run.ledger.execute("SELECT pg_stat_clear_snapshot()")
    row = run.ledger.execute(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relid = 'lifecycle.sends'::regclass"
    ).fetchone()
    assert row is not None
    return row[0]
