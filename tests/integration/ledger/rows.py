"""Makes campaigns, cohorts and sends for tests, and lets time pass in a ledger."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.ledger.upkeep import sweep

COHORT_DATE = date(2026, 5, 1)


def make_campaign(**fields: Any) -> Campaign:
    """A valid campaign; ``fields`` replace its own."""
    values = {
        "id": "day4_follow_up",
        "schedule": "0 6 * * *",
        "timezone": "UTC",
        "offset_days": 4,
        "audience": "users_created_between.sql",
        "sender": "The team <hello@example.com>",
        **fields,
    }
    return Campaign.model_validate({("from" if k == "sender" else k): v for k, v in values.items()})


def connect(url: str) -> psycopg.Connection[Any]:
    """An autocommit connection, as the ledger's functions want it."""
    return psycopg.connect(url, autocommit=True)


def add_cohort(
    ledger: psycopg.Connection[Any],
    campaign_id: str = "day4_follow_up",
    cohort_date: date = COHORT_DATE,
    not_after: datetime | None = None,
) -> None:
    """A cohort of one UTC day; its deadline is tomorrow unless given."""
    start = datetime(cohort_date.year, cohort_date.month, cohort_date.day, tzinfo=UTC)
    ledger.execute(
        "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone, offset_days,"
        " not_after) VALUES (%s, %s, %s, %s, 'UTC', 4, %s) ON CONFLICT DO NOTHING",
        (
            campaign_id,
            cohort_date,
            start,
            start + timedelta(days=1),
            not_after or datetime.now(UTC) + timedelta(days=1),
        ),
    )


def add_sends(
    ledger: psycopg.Connection[Any],
    user_ids: Iterable[str],
    campaign_id: str = "day4_follow_up",
    cohort_date: date = COHORT_DATE,
    state: str = "planned",
    batch: int = 0,
    **columns: Any,
) -> None:
    """Sends of an existing cohort in any state, with what that state must have; ``columns`` replace it."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "campaign": campaign_id, "cohort_date": cohort_date, "state": state, "batch": batch,
        "held_reason": "suppressed" if state == "held" else None,
        "sent_at": now if state == "sent" else None,
        "ready_at": None if state in ("planned", "held") else now,
    }  # fmt: skip
    if state in ("sending", "sent", "in_doubt"):
        values |= {
            "attempt": "00000000-0000-4000-8000-000000000001",
            "gate_at": now,
            "answer_due": now + timedelta(minutes=10),
        }
    values |= columns
    names = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    with without_triggers(ledger):
        ledger.cursor().executemany(
            f"INSERT INTO lifecycle.sends (user_id, {names}) VALUES (%(user_id)s, {marks})",
            [{"user_id": user_id, **values} for user_id in user_ids],
        )
    ledger.execute(
        "INSERT INTO lifecycle.batches VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (campaign_id, cohort_date, batch),
    )


def make_doubts(
    ledger: psycopg.Connection[Any],
    user_ids: Iterable[str],
    campaign_id: str = "day4_follow_up",
    age: timedelta = timedelta(hours=1),
) -> None:
    """Sends whose answer never came, swept into doubt; the answer was due an ``age`` ago."""
    now = datetime.now(UTC)
    add_sends(
        ledger, user_ids, campaign_id, state="sending", gate_at=now - timedelta(minutes=11), answer_due=now
    )
    let_time_pass(ledger, age)
    sweep(ledger, campaign_id, [COHORT_DATE])


def states(ledger: psycopg.Connection[Any], campaign_id: str = "day4_follow_up") -> dict[str, str]:
    """State of every user, with the reason behind a slash for the held."""
    rows = ledger.execute(
        "SELECT user_id, concat_ws('/', state::text, held_reason::text) FROM lifecycle.sends WHERE campaign = %s ORDER BY 1",
        (campaign_id,),
    )
    return dict(rows.fetchall())


def let_time_pass(ledger: psycopg.Connection[Any], time: timedelta) -> None:
    """Make everything in the ledger ``time`` older: time is the database's, so this is how it passes in a test."""
    with without_triggers(ledger):
        rows = ledger.execute(
            "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
            " USING (table_schema, table_name) WHERE table_schema = 'lifecycle' AND table_type = 'BASE TABLE'"
            " AND data_type = 'timestamp with time zone' AND table_name <> 'migrations'"
        ).fetchall()
        for table, column in rows:
            ledger.execute(f"UPDATE lifecycle.{table} SET {column} = {column} - %s", (time,))


@contextmanager
def without_triggers(ledger: psycopg.Connection[Any]) -> Any:
    """For building a past that the rules would not let one write; constraints still hold."""
    ledger.execute("SET session_replication_role = replica")
    try:
        yield
    finally:
        ledger.execute("SET session_replication_role = origin")
