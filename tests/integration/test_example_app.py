"""The example users: enough of them, the same every time, and awkward in every way that matters."""

import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import psycopg

from local_stack import example_app
from local_stack.example_users import (
    BROKEN_ADDRESSES,
    NAMES,
    ODDITIES,
    newest_users,
    users_of_day,
)

NOW = datetime(2026, 5, 6, 9, 30, tzinfo=UTC)


def test_app_holds_twenty_thousand_users_on_each_of_thirty_days(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert example_app.add_users(connection, NOW) == 20_000
        days = dict(
            connection.execute(
                "SELECT (created_at AT TIME ZONE 'UTC')::date, count(*) FROM users GROUP BY 1"
            ).fetchall()
        )
        expected = {NOW.date() - timedelta(days=n) for n in range(30)}
        assert expected <= set(days)
        assert len(days) <= 31
        assert min(days[day] for day in expected if day != NOW.date()) > 400
        latest = connection.execute("SELECT max(created_at) FROM users").fetchone()
        assert latest is not None
        assert latest[0] <= NOW


def test_app_makes_one_day_many_times_larger_than_the_others(empty_database: str) -> None:
    fair = NOW.date() - timedelta(days=5)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        example_app.add_users(connection, NOW)
        of_day = "SELECT count(*) FROM users WHERE (created_at AT TIME ZONE 'UTC')::date = %s"
        [before] = connection.execute(of_day, [fair]).fetchone() or (0,)
        added = example_app.add_users_of_day(connection, fair, 5_000)
        assert connection.execute(of_day, [fair]).fetchone() == (before + added,)
        assert added > 3_000


def test_app_adds_only_who_signed_up_since(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        example_app.add_users(connection, NOW, count=2000)
        before = set(connection.execute("SELECT users::text FROM users").fetchall())
        assert example_app.add_users(connection, NOW, count=2000) == 0
        added = example_app.add_users(connection, NOW + timedelta(days=2), count=2000)
        after = set(connection.execute("SELECT users::text FROM users").fetchall())
    assert before < after
    assert len(after) - len(before) == added
    assert 80 < added < 200


def test_app_names_one_percent_as_unsubscribed_elsewhere(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        example_app.add_users(connection, NOW, count=5000)
        unsubscribed = example_app.unsubscribed_elsewhere(connection)
        (known,) = connection.execute(
            "SELECT count(*) FROM users WHERE user_id::text = ANY(%s)", [unsubscribed]
        ).fetchone() or (0,)
    assert len(unsubscribed) == known
    assert 30 < known < 80


def test_users_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    day = date(2026, 5, 2)
    assert users_of_day(day, 100, seed=4) == users_of_day(day, 100, seed=4)
    assert users_of_day(day, 100, seed=4) != users_of_day(day, 100, seed=5)


def test_users_of_a_day_fill_it_from_the_first_to_the_last_microsecond() -> None:
    users = users_of_day(date(2026, 5, 2), 10, seed=4)
    assert users[0].created_at == datetime(2026, 5, 2, tzinfo=UTC)
    assert users[-1].created_at == datetime(2026, 5, 2, 23, 59, 59, 999999, tzinfo=UTC)
    assert sorted(users, key=lambda user: user.created_at) == users


def test_users_of_a_day_include_every_oddity() -> None:
    users = users_of_day(date(2026, 5, 4), 680, seed=4)
    names = {user.full_name for user in users}
    addresses = [re.sub(r"\d{8}", "{id}", user.email) if user.email else user.email for user in users]
    assert set(NAMES) <= names
    assert set(BROKEN_ADDRESSES) <= set(addresses)
    shared = [n for email, n in Counter(user.email for user in users).items() if email]
    assert Counter(shared)[2] == 1
    assert len(ODDITIES) < len(users) / 20
    assert 0.05 < sum(not user.setup_done for user in users) / len(users) < 0.15
    assert 0 < sum(user.email_opt_out for user in users) / len(users) < 0.05
    assert len({user.timezone for user in users}) > 20


def test_users_have_no_address_outside_the_example_domains() -> None:
    for user in newest_users(NOW, 20_000, seed=4):
        for domain in re.findall(r"@([^\s,;>@]+)", user.email or ""):
            assert re.search(r"(^|\.)example\.(com|org|net)$", domain), domain
