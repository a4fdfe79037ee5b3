"""A deadline moves only by an extension that is written down with it, later only, for all that was approved."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.extending import extend, look_at_extension
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.upkeep import keep_up
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.going_back import ask_gate, let_go
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
)

CAMPAIGN = "day4_follow_up"
NEXT = COHORT_DATE + timedelta(days=1)


def stale_cohorts(ledger: psycopg.Connection) -> None:
    for day in (COHORT_DATE, NEXT):
        add_cohort(ledger, cohort_date=day)
        add_sends(ledger, [f"{day} planned"], cohort_date=day)
        add_sends(ledger, [f"{day} sent"], cohort_date=day, state="sent")
    let_time_pass(ledger, timedelta(days=3))
    keep_up(ledger, (), now=datetime.now(UTC))


def test_user_of_an_extended_cohort_who_has_unsubscribed_meanwhile_is_held_for_that(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        stale_cohorts(ledger)
        suppress(ledger, user_id=f"{COHORT_DATE} planned", reason="unsubscribed", actor="ada")
        suppress(ledger, user_id=f"{NEXT} planned", reason="unsubscribed", actor="ada")
        extend(
            ledger,
            look_at_extension(ledger, CAMPAIGN, COHORT_DATE, COHORT_DATE, 2),
            reason="the provider was down",
            actor="ada",
        )
        for _ in range(2):
            filter_ledger(ledger, make_campaign(), [COHORT_DATE, NEXT])
            held = states(ledger)
            assert held[f"{COHORT_DATE} planned"] == "held/suppressed"
            assert held[f"{NEXT} planned"] == "held/stale"


def test_extended_cohort_is_judged_again_and_the_approval_is_kept(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        stale_cohorts(ledger)
        extension = look_at_extension(ledger, CAMPAIGN, COHORT_DATE, COHORT_DATE, 2)
        assert (extension.cohorts, extension.users, extension.stale) == (1, 1, 1)
        extend(ledger, extension, reason="the provider was down", actor="ada")
        filter_ledger(ledger, make_campaign(), [COHORT_DATE, NEXT])
        assert states(ledger) == {
            f"{COHORT_DATE} planned": "planned", f"{COHORT_DATE} sent": "sent",
            f"{NEXT} planned": "held/stale", f"{NEXT} sent": "sent",
        }  # fmt: skip
        kept = ledger.execute(
            "SELECT cohort_from, cohort_to, days, extended_by, reason, cohorts, users FROM lifecycle.extensions"
        ).fetchall()
        assert kept == [(COHORT_DATE, COHORT_DATE, 2, "ada", "the provider was down", 1, 1)]
        [(closed_at, left)] = ledger.execute(
            "SELECT closed_at, not_after - now() FROM lifecycle.cohorts WHERE cohort_date = %s",
            (COHORT_DATE,),
        ).fetchall()
        assert closed_at is None
        assert timedelta(days=1, hours=23) < left <= timedelta(days=2)


def test_deadline_to_come_is_extended_from_itself(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        before = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()
        extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 3), reason="x")
        after = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] == timedelta(days=3)


WRITTEN = (
    "BEGIN; INSERT INTO lifecycle.extensions"
    " (campaign, cohort_from, cohort_to, days, extended_by, reason, cohorts, users)"
    " VALUES ('{}', '2026-05-01', '2026-05-01', 1, 'ada', 'x', 1, 0);"
    " UPDATE lifecycle.cohorts SET {}; COMMIT"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lifecycle.cohorts SET not_after = not_after + interval '1 hour'",
        "UPDATE lifecycle.cohorts SET not_after = not_after - interval '1 hour'",
        WRITTEN.format(CAMPAIGN, "not_after = not_after + interval '25 hours'"),
        WRITTEN.format(CAMPAIGN, "not_after = not_after - interval '1 hour'"),
        WRITTEN.format(CAMPAIGN, "window_end = window_end + interval '1 hour', not_after = not_after + interval '1 hour'"),
        WRITTEN.format("other", "not_after = not_after + interval '1 hour'"),
    ],
)  # fmt: skip
def test_database_moves_no_deadline_beyond_what_was_written_down(
    ledger_database: str, statement: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 30), reason="an earlier one")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refusal:
            ledger.execute(statement.encode())
        assert refusal.value.diag.constraint_name == "cohort_is_frozen"


@pytest.mark.parametrize(
    "statement", ["DELETE FROM lifecycle.extensions", "UPDATE lifecycle.extensions SET days = 9"]
)
def test_approval_is_never_rewritten(ledger_database: str, statement: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 3), reason="x")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            ledger.execute(statement.encode())


@pytest.mark.parametrize(
    ("first", "days", "reason", "message"),
    [
        (date(2025, 1, 1), 2, "x", "no cohort from 2025-01-01"),
        (COHORT_DATE, 0, "x", "write 1 to 366"),
        (COHORT_DATE, 2, " ", "give a reason"),
    ],
)
def test_mistaken_extension_changes_nothing(
    ledger_database: str, first: date, days: int, reason: str, message: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        before = ledger.execute("SELECT * FROM lifecycle.cohorts").fetchall()
        with pytest.raises(LedgerError, match=message):
            extend(ledger, look_at_extension(ledger, CAMPAIGN, first, first, days), reason=reason)
        assert ledger.execute("SELECT * FROM lifecycle.cohorts").fetchall() == before


def test_two_who_look_at_once_and_approve_extend_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        seen = look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 3)
        extend(ledger, seen, reason="the provider was down", actor="ada")
        after_ada = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall()
        with pytest.raises(
            LedgerError,
            match=r"these cohorts were extended since you looked, by ada at .*; nothing was changed",
        ):
            extend(ledger, seen, reason="the provider was down", actor="bob")
        assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() == after_ada
        extend(
            ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 3), reason="longer", actor="bob"
        )


def test_more_users_than_were_approved_are_not_extended(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        stale_cohorts(ledger)
        approved = replace(look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 2), users=1)
        with pytest.raises(LedgerError, match="2 users are concerned by now, and 1 were approved"):
            extend(ledger, approved, reason="x")
        assert ledger.execute("SELECT count(*) FROM lifecycle.extensions").fetchone() == (0,)


def over_before_the_backup(ledger: psycopg.Connection, url: str) -> None:
    """User 1 passed the gate once and was refused, 2 never did; both went stale, and an hour is lost since."""
    add_cohort(ledger, not_after=datetime.now(UTC) + timedelta(minutes=30))
    add_sends(ledger, ["1", "2"], state="ready")
    with open_gate(url) as gate:
        attempt = uuid4()
        assert gate.ask("1", attempt, HASH) is Passage.PASSED
        gate.record(Record("1", attempt, RecordedAs.RETRY, detail="dot: 451 4.3.0"))
        assert gate.flush(timeout=10)
    let_time_pass(ledger, timedelta(hours=2))
    keep_up(ledger, (), now=datetime.now(UTC))
    assert states(ledger) == {"1": "held/stale", "2": "held/stale"}
    assert let_go(ledger, None, datetime.now(UTC) - timedelta(hours=1)) == 0


def judge(ledger: psycopg.Connection) -> None:
    filter_ledger(ledger, make_campaign(), [COHORT_DATE])
    limit_rate(ledger, make_campaign(), (), [COHORT_DATE], callbacks=(), run="a run", max_groups=1)


def test_extending_doubts_whoever_may_have_been_mailed_by_an_extension_that_is_forgotten(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        over_before_the_backup(ledger, ledger_database)
        assert extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 2), reason="x") == 2
        assert states(ledger) == {"1": "in_doubt", "2": "in_doubt"}
        judge(ledger)  # a run cleared from filter_ledger, which extracts nobody
        assert {ask_gate(ledger_database, user) for user in ("1", "2")} == {Passage.LOST}


def test_doubt_of_an_extension_that_a_person_settles_is_not_doubted_anew(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        over_before_the_backup(ledger, ledger_database)
        extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 2), reason="x")
        settle(ledger, CAMPAIGN, Which(["1"]), SettleAs.SEND_AGAIN, reason="the provider never had it")
        assert extend(ledger, look_at_extension(ledger, CAMPAIGN, COHORT_DATE, NEXT, 2), reason="x") == 0
        judge(ledger)
        assert states(ledger) == {"1": "ready", "2": "in_doubt"}
