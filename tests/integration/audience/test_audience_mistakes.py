"""What an audience that cannot be used says, and that it tells nothing of anybody."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle_emails.audience import Audience
from lifecycle_emails.errors import SourceError
from lifecycle_emails.source_error import explain
from tests.integration.audience.case import WINDOW, add_users, audience, cohort, failure


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT email FROM users", "it returns no column `user_id`, so add it to the SELECT list"),
        ("SELECT user_id FROM users", "it returns no column `email`"),
        ("SELECT user_id, email, email FROM users", "it returns the column `email` twice"),
        ("SELECT user_id, email, 1 + 1 FROM users", "its column `?column?` cannot be a template variable"),
        (
            "SELECT user_id, email, 1 AS campaign FROM users",
            "its column `campaign` has the name of a variable",
        ),
        ("SELECT user_id::numeric, email FROM users", "its user_id is of type numeric, so cast it"),
        ("SELECT user_id, user_id AS email FROM users", "its email is of type int8"),
        (
            "SELECT user_id, email,\n  emial\nFROM users",
            ', line 2: column "emial" does not exist. Perhaps you meant',
        ),
        ("SELECT user_id, email\nFROM user_s", ', line 2: relation "user_s" does not exist'),
        ("SELECT user_id, email\nFROM users\nWHER true OR", ", line 3: syntax error at or near"),
        ("DELETE FROM users RETURNING user_id, email --", "syntax error"),
    ],
)
def test_audience_that_returns_the_wrong_things_says_which(
    tmp_path: Path, source: psycopg.Connection[Any], text: str, says: str
) -> None:
    error = failure(
        audience(tmp_path, f"{text}\nWHERE {WINDOW}" if "WHER " not in text else f"{text} {WINDOW}"), source
    )
    assert error.startswith("include/audiences/users.sql")
    assert says in error


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 AS user_id, 'a' AS email FROM users WHERE {WINDOW}) AS a; DELETE FROM users; SELECT (1",
        f"SELECT 1 AS user_id, 'a' AS email WHERE {WINDOW}) AS a; COMMIT; DELETE FROM users; SELECT * FROM (SELECT 1",
    ],
)
def test_audience_cannot_smuggle_a_second_statement_past_the_text(
    source: psycopg.Connection[Any], text: str
) -> None:
    """As if the reading of the text had a hole: the protocol refuses what it should have refused."""
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    query = text.replace("%(cohort_start)s", "'2026-05-01'").replace("%(cohort_end)s", "'2026-05-02'")
    subject = Audience(name="include/audiences/users.sql", query=query, timezone="UTC")
    assert "cannot insert multiple commands" in failure(subject, source)
    assert source.execute("SELECT count(*) FROM users").fetchone() == (1,)


def test_audience_that_writes_is_refused(tmp_path: Path, source: psycopg.Connection[Any]) -> None:
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    source.execute(
        "CREATE FUNCTION forget() RETURNS bigint LANGUAGE sql AS 'DELETE FROM users WHERE user_id = 1 RETURNING user_id'"
    )
    source.commit()
    error = failure(
        audience(tmp_path, f"SELECT forget() AS user_id, email FROM users WHERE {WINDOW}"), source
    )
    assert "cannot execute DELETE in a read-only transaction" in error
    assert source.execute("SELECT count(*) FROM users").fetchone() == (1,)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("full_name::bigint", 'invalid input syntax for type bigint: "<value>"'),
        (
            "(full_name || '12345678901234567890')::numeric",
            'invalid input syntax for type numeric: "<value>"',
        ),
        ("email::uuid", 'invalid input syntax for type uuid: "<value>"'),
        ("1 / (user_id - user_id)", "division by zero"),
        ("complain(full_name, email)", "a function that the query calls raised an error of its own"),
        ("to_char(created_at, 'J')::int * user_id * 9223372036854775807", "bigint out of range"),
    ],
)
def test_audience_that_fails_on_a_row_tells_nothing_of_it(
    tmp_path: Path, source: psycopg.Connection[Any], expression: str, says: str
) -> None:
    add_users(source, (4711, "ann@example.com", 'Ann "O\n" Lee 815', "2026-05-01T12:00Z"))
    source.execute(
        "CREATE FUNCTION complain(a text, b text) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'what of % and %', a, b USING HINT = b, DETAIL = a; END $$"
    )
    source.commit()
    error = failure(
        audience(
            tmp_path,
            f"SELECT user_id, email, {expression} AS x FROM users WHERE {WINDOW} AND {expression} IS NOT NULL",
        ),
        source,
    )
    assert says in error
    for secret in ("Ann", "Lee", "815", "4711", "example.com"):
        assert secret not in error


def test_audience_with_a_row_without_user_id_is_an_error(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    text = f"SELECT NULLIF(user_id, 1) AS user_id, email FROM users WHERE {WINDOW}"
    assert "a row has no user_id" in failure(audience(tmp_path, text), source)


def test_audience_with_a_user_twice_gives_both_and_no_profile(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    add_users(source, (1, "ann@example.com", "Ann", "2026-05-01T12:00Z"))
    text = f"SELECT user_id, email FROM users, generate_series(1, 2) WHERE {WINDOW}"
    subject = audience(tmp_path, text)
    assert [user_id for user_id, _ in subject.members(source, cohort())] == ["1", "1"]
    with pytest.raises(SourceError, match="a user is returned twice; return one row for each user_id"):
        subject.profiles(source, cohort(), ["1"])


def test_audience_with_another_value_that_python_cannot_hold_says_so() -> None:
    error = explain(psycopg.DataError("cannot hold 'secret'"), audience="users.sql", text="", sent="")
    assert "users.sql: the source returned a value that Python cannot hold (DataError)" in str(error)
    assert "secret" not in str(error)


def test_audience_in_a_time_zone_unknown_to_the_server_says_so(
    tmp_path: Path, source: psycopg.Connection[Any]
) -> None:
    subject = replace(audience(tmp_path), timezone="Mars/Olympus")
    assert "that the server knows the campaign's source_timezone" in failure(subject, source)


def test_audience_whose_connection_is_cut_says_so(
    tmp_path: Path, source: psycopg.Connection[Any], source_database: str
) -> None:
    with psycopg.connect(source_database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [source.info.backend_pid])
    with pytest.raises(SourceError, match="run the task again"):
        list(audience(tmp_path).members(source, cohort()))
