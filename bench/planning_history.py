"""Fill a ledger with the sends of a past year, in four campaigns which every user was in.

Loaded by INSERT in sets, without triggers and indexes, which are built afterwards. Must not know what is
measured.
"""

from __future__ import annotations

from datetime import date, timedelta
from importlib.resources import files

from lifecycle_emails.ledger.session import LedgerConnection, one_row

CAMPAIGNS = ("day0_welcome", "day2_setup_help", "day7_tips", "day14_survey")
DAYS = 365
_SQL = files("bench") / "planning_sql"
_DAYS_AT_ONCE = 30


def load_history(ledger: LedgerConnection, user_id: str, sends: int, *, last: date, first_user: int) -> int:
    """Load about ``sends`` up to the cohorts of ``last``; return the number of users, from ``first_user`` on.

    ``user_id`` is the SQL expression of the id of user number n.
    """
    per_day = sends // len(CAMPAIGNS) // DAYS
    facts = {
        "campaigns": list(CAMPAIGNS),
        "first": last - timedelta(days=DAYS - 1),
        "last": last,
        "first_user": first_user,
        "users_per_day": per_day,
    }
    ledger.execute(_text("add_history_cohorts"), facts)
    (index,) = one_row(ledger.execute("SELECT pg_get_indexdef('lifecycle.sends_by_cohort'::regclass)"))
    ledger.execute("SET session_replication_role = replica")  # history does not begin as planned
    ledger.execute("SET maintenance_work_mem = '1GB'")
    ledger.execute("ALTER TABLE lifecycle.sends SET (fillfactor = 90)")  # as updates have left the pages
    ledger.execute("ALTER TABLE lifecycle.sends DROP CONSTRAINT sends_pkey")
    ledger.execute("DROP INDEX lifecycle.sends_by_cohort")
    for day in range(0, DAYS, _DAYS_AT_ONCE):
        start, end = (first_user + min(at, DAYS) * per_day for at in (day, day + _DAYS_AT_ONCE))
        add = _text("add_history").replace(b"{user_id}", user_id.encode())
        ledger.execute(add, {**facts, "from_user": start, "to_user": end})
    ledger.execute("ALTER TABLE lifecycle.sends ADD PRIMARY KEY (user_id, campaign, occurrence)")
    ledger.execute(index.encode())
    ledger.execute("ALTER TABLE lifecycle.sends SET (fillfactor = 50)")
    ledger.execute("SET session_replication_role = origin")
    ledger.execute("VACUUM ANALYZE lifecycle.sends, lifecycle.cohorts")
    ledger.execute("CHECKPOINT")
    return per_day * DAYS


def _text(name: str) -> bytes:
    return (_SQL / f"{name}.sql").read_bytes()
