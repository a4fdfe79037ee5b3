"""The example application: a database with the users that the example campaigns write to.

It stands for a team's own application and knows nothing of campaigns or the ledger.
"""

from dataclasses import astuple, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

import psycopg

from local_stack.example_users import User, newest_users, users_of_day

USERS = 20_000
SEED = 4

_SCHEMA = Path(__file__).with_suffix(".sql").read_bytes()
_COLUMNS = ", ".join(field.name for field in fields(User))
_COPY = f"COPY arriving ({_COLUMNS}) FROM STDIN"


def create_table(connection: psycopg.Connection[Any]) -> None:
    """Create the users table; no error when it exists."""
    connection.execute(_SCHEMA)


def add_users(
    connection: psycopg.Connection[Any], now: datetime, count: int = USERS, seed: int = SEED
) -> int:
    """Add the newest `count` users as of `now`, creating the table when missing; return how many were new.

    The same users for the same seed, whenever it is called: called again some days later, it adds those who
    signed up since.
    """
    return _add(connection, newest_users(now, count, seed))


def add_users_of_day(connection: psycopg.Connection[Any], day: date, count: int, seed: int = SEED) -> int:
    """Let about `count` users in all have signed up on a UTC day, as at a fair; return how many were new."""
    return _add(connection, users_of_day(day, count, seed))


def _add(connection: psycopg.Connection[Any], users: list[User]) -> int:
    create_table(connection)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE arriving (LIKE users) ON COMMIT DROP")
        with cursor.copy(_COPY) as copy:
            for user in users:
                copy.write_row(astuple(user))
        cursor.execute("INSERT INTO users SELECT * FROM arriving ON CONFLICT DO NOTHING")
        added = cursor.rowcount
    connection.execute("ANALYZE users")
    return added


def unsubscribed_elsewhere(connection: psycopg.Connection[Any]) -> list[str]:
    """List the ids of one percent of the users, to be suppressed in the ledger.

    They stand for people who unsubscribed through the provider or complained: the users table does not know.
    """
    rows = connection.execute("SELECT user_id::text FROM users WHERE user_id % 100 = 37 ORDER BY user_id")
    return [user_id for (user_id,) in rows]
