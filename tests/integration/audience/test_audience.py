"""Which users an audience returns, and what it says about them."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from lifecycle_emails.audience import Audience, AudienceColumns
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.cohort import natural_cohort
from tests.factories import INCLUDE
from tests.integration.audience.case import DAY, WINDOW, add_users, audience, cohort


def test_audience_returns_the_users_of_the_window(tmp_path: Path, source: psycopg.Connection[Any]) -> None:
    add_users(
        source,
        (1, "early@example.com", "Early", "2026-04-30T23:59:59.999999Z"),
        (2, "first@example.com", "First", "2026-05-01T00:00:00Z"),
        (10, "last@example.com", "Last", "2026-05-01T23:59:59.999999Z"),
        (11, "late@example.com", "Late", "2026-05-02T00:00:00Z"),
    )
    subject = audience(tmp_path)
    assert list(subject.members(source, cohort())) == [("10", "last@example.com"), ("2", "first@example.com")]
    assert subject.check(source, cohort()) == AudienceColumns("bigint", ("user_id", "email", "full_name"))
    assert subject.profiles(source, cohort(), ["1", "2", "11", "404"]) == {
        "2": {"user_id": 2, "email": "first@example.com", "full_name": "First"}
    }


@pytest.mark.parametrize("campaign_id", ["day4_follow_up", "day4_setup_help"])
def test_audience_of_the_examples_leaves_out_who_opted_out(
    source: psycopg.Connection[Any], campaign_id: str
) -> None:
    add_users(
        source,
        (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"),
        (2, "bob@example.com", "Bob", "2026-05-01T12:00Z"),
        (3, "cy@example.com", "Cy", "2026-05-01T12:00Z"),
    )
    source.execute("UPDATE users SET setup_done = user_id <> 2, email_opt_out = user_id = 3")
    source.execute(
        "INSERT INTO users SELECT 4, 'di@example.com', 'Di', 'en', 'UTC', created_at, false, true FROM users LIMIT 1"
    )
    source.commit()
    campaign = load_campaign(INCLUDE, campaign_id)
    found = Audience.load(INCLUDE, campaign).members(source, natural_cohort(campaign, DAY))
    expected = {"day4_follow_up": ["1", "2"], "day4_setup_help": ["2"]}[campaign_id]
    assert [user_id for user_id, _ in found] == expected


@pytest.mark.parametrize(
    ("user_id_type", "ids", "column_type", "value"),
    [
        ("bigint", ["-5", "10", "9"], "bigint", -5),
        ("integer", ["10", "9"], "integer", 10),
        ("integer", ["10", "9"], "smallint", 10),
        ("uuid", ["00000000-0000-4000-8000-000000000001"], "uuid", UUID(int=0x4000_8000_0000_0000_0001)),
        ("text", ["A", "Z", "a", "b'\"\\,{}", "\u00e9"], "text", "A"),
        ("text", ["A", "a"], "varchar(20)", "A"),
    ],
)
def test_audience_takes_each_type_of_user_id(
    tmp_path: Path,
    source: psycopg.Connection[Any],
    user_id_type: str,
    ids: list[str],
    column_type: LiteralString,
    value: Any,
) -> None:
    source.execute(
        f"CREATE TABLE people (user_id {column_type} PRIMARY KEY, email text, created_at timestamptz)".encode()
    )
    for user_id in reversed(ids):
        source.execute(
            f"INSERT INTO people VALUES (%s::{column_type}, 'ann@example.com', '2026-05-01T12:00Z')".encode(),
            [user_id],
        )
    source.commit()
    subject = audience(tmp_path, f"SELECT user_id, email FROM people WHERE {WINDOW}")
    assert subject.check(source, cohort()).user_id_type == user_id_type
    assert [user_id for user_id, _ in subject.members(source, cohort())] == ids
    profiles = subject.profiles(source, cohort(), ids)
    assert sorted(profiles) == sorted(ids)
    assert profiles[ids[0]]["user_id"] == value


@pytest.mark.parametrize("column_type", ["timestamptz", "timestamp"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_audience_reads_created_at_with_and_without_time_zone(
    tmp_path: Path, source: psycopg.Connection[Any], column_type: LiteralString, zone: str
) -> None:
    """The source's clock is ``zone``; the campaign's days are Berlin's, clocks changing on that day."""
    campaign = {"timezone": "Europe/Berlin", "source_timezone": zone}
    spring = cohort(date(2026, 3, 29), **campaign)
    source.execute(f"CREATE TABLE people (user_id text, email text, created_at {column_type})".encode())
    source.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    moment = timedelta(microseconds=1)
    for name, at in [
        ("before", spring.window_start - moment),
        ("start", spring.window_start),
        ("end", spring.window_end - moment),
        ("after", spring.window_end),
    ]:
        # As an application in that zone stores it: its own wall clock where the column has no zone.
        source.execute(
            f"INSERT INTO people VALUES (%s, 'ann@example.com', %s::timestamptz::{column_type})".encode(),
            [name, at],
        )
    source.execute("RESET TimeZone")
    source.commit()
    text = f"SELECT user_id, email, created_at FROM people WHERE {WINDOW}"
    subject = audience(tmp_path, text, **campaign)
    assert [name for name, _ in subject.members(source, spring)] == ["end", "start"]
    created_at = subject.profiles(source, spring, ["start"])["start"]["created_at"]
    if column_type == "timestamptz":
        assert created_at == spring.window_start
        assert str(created_at.tzinfo) == zone
    assert source.execute("SHOW TimeZone").fetchone() == ("Asia/Kathmandu",)


def test_audience_gives_values_as_python_has_them(tmp_path: Path, source: psycopg.Connection[Any]) -> None:
    name = "Zo\u00eb \u4f8b \U0001f600 {{ 7 * 7 }} \\N\t\n'\""
    add_users(source, (1, "zoe@example.com", name, "2026-05-01T12:00Z"))
    text = f"""
        SELECT user_id, email, full_name, created_at, NULL::text AS nothing, true AS yes, 1.50 AS price,
               date '2026-05-01' AS day, interval '1 day 2 hours' AS since, ARRAY['a', 'b'] AS list
        FROM users WHERE {WINDOW}"""
    assert audience(tmp_path, text).profiles(source, cohort(), ["1"])["1"] | {"price": "1.50"} == {
        "user_id": 1,
        "email": "zoe@example.com",
        "full_name": name,
        "created_at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "nothing": None,
        "yes": True,
        "price": "1.50",
        "day": DAY,
        "since": timedelta(days=1, hours=2),
        "list": ["a", "b"],
    }


def test_audience_streams_hostile_and_missing_addresses_as_they_are(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    source.execute("ALTER TABLE users ALTER email DROP NOT NULL")
    hostile = "a\tb\n\\N@example.com\r\nRCPT TO:<x>"
    add_users(source, (1, hostile, "A", "2026-05-01T12:00Z"), (2, "", "B", "2026-05-01T12:00Z"))
    source.execute("INSERT INTO users SELECT 3, NULL, 'C', 'en', 'UTC', '2026-05-01T12:00Z'")
    source.commit()
    assert list(audience(tmp_path).members(source, cohort())) == [("1", hostile), ("2", ""), ("3", None)]


@pytest.mark.parametrize(
    "end", ["", ";", ";\n", " -- the end", " -- the end;", "; -- the end", " /* the end */ ;", " --"]
)
def test_audience_text_may_end_in_semicolon_and_comment(
    tmp_path: Path, source: psycopg.Connection[Any], end: str
) -> None:
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    text = f"-- who: everybody\nSELECT user_id, email FROM users\nWHERE {WINDOW}{end}"
    assert list(audience(tmp_path, text).members(source, cohort())) == [("1", "ann@example.com")]


def test_audience_text_may_hold_percent_signs_braces_and_its_own_with_and_order(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    add_users(
        source,
        (3, "ann@example.com", "100% Ann", "2026-05-01T12:00Z"),
        (4, "bob@example.com", "100% Bob", "2026-05-01T12:00Z"),
    )
    text = f"""
        WITH recent AS (SELECT * FROM users WHERE {WINDOW})
        SELECT user_id, email, '{{audience}} %s %(x)s {{{{ }}}}' AS odd FROM recent
        WHERE user_id % 2 = 1 AND full_name LIKE '100%%' AND email LIKE '%@%' AND created_at < %(cohort_end)s
        ORDER BY created_at LIMIT 10"""
    subject = audience(tmp_path, text)
    assert list(subject.members(source, cohort())) == [("3", "ann@example.com")]
    assert subject.profiles(source, cohort(), ["3", "4"])["3"]["odd"] == "{audience} %s %(x)s {{ }}"


def test_audience_gives_times_that_python_cannot_hold_as_text(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    text = f"""
        SELECT user_id, email, timestamptz 'infinity' AS never, timestamp '12000-01-01 00:00' AS far,
               date '0044-03-15 BC' AS long_ago, time '24:00' AS midnight, interval '170000000 years' AS ages,
               ARRAY[timestamptz '-infinity', '2026-05-01T12:00Z'] AS times
        FROM users WHERE {WINDOW}"""
    profile = audience(tmp_path, text).profiles(source, cohort(), ["1"])["1"]
    assert profile == {
        "user_id": 1,
        "email": "ann@example.com",
        "never": "infinity",
        "far": "12000-01-01 00:00:00",
        "long_ago": "0044-03-15 BC",
        "midnight": "24:00:00",
        "ages": "170000000 years",
        "times": ["-infinity", datetime(2026, 5, 1, 12, tzinfo=UTC)],
    }


def test_audience_stopped_half_way_leaves_the_connection_usable(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    text = """
        SELECT g AS user_id, 'ann@example.com' AS email FROM generate_series(1, 100000) AS g
        WHERE %(cohort_start)s < %(cohort_end)s"""
    members = audience(tmp_path, text).members(source, cohort())
    assert next(members) == ("1", "ann@example.com")
    members.close()  # type: ignore[attr-defined]  # a generator, which closes its transaction
    assert source.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert source.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("autocommit", [True, False])
def test_audience_leaves_settings_and_transactions_of_the_connection_alone(
    tmp_path: Path, source_database: str, autocommit: bool
) -> None:
    with psycopg.connect(source_database, autocommit=autocommit) as source:
        subject = audience(tmp_path, source_timezone="Asia/Tokyo")
        for _ in range(8):  # more often than psycopg waits before it prepares a statement
            subject.check(source, cohort())
            assert list(subject.members(source, cohort())) == []
            assert subject.profiles(source, cohort(), ["1"]) == {}
        assert source.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert source.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert source.execute("SHOW transaction_read_only").fetchone() == ("off",)
        assert source.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_audience_profiles_use_the_index_on_the_users_id(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    source.execute(
        "INSERT INTO users SELECT g, 'ann@example.com', 'Ann', 'en', 'UTC', '2026-05-01T12:00Z' FROM generate_series(1, 20000) AS g"
    )
    source.execute("ANALYZE users")
    source.commit()
    subject = audience(tmp_path)
    query = subject._wrapped("profiles", user_id_type="bigint")
    with psycopg.RawCursor(source) as cursor:
        window = [cohort().window_start, cohort().window_end]
        cursor.execute(f"EXPLAIN {query}".encode(), [*window, ["1", "2", "3"]])
        plan = "\n".join(line for (line,) in cursor)
    assert "users_pkey" in plan
