"""A person settles doubts: all that were named or none, never what may still be answered or was accepted."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.judging import filter_ledger
from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.upkeep import keep_up
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    make_doubts,
    states,
)

CAMPAIGN = "day4_follow_up"
ALL = Which()


def hand(ledger, which: Which, verdict: SettleAs):
    return settle(ledger, CAMPAIGN, which, verdict, reason="asked the provider", actor="ada")


@pytest.mark.parametrize(("verdict", "state"), [(SettleAs.SENT, "sent"), (SettleAs.SEND_AGAIN, "planned")])
def test_settling_is_recorded_with_actor_and_reason(
    ledger_database: str, verdict: SettleAs, state: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1", "2"])
        assert hand(ledger, Which(["1"]), verdict).users == 1
        assert states(ledger) == {"1": state, "2": "in_doubt"}
        [(actor, detail)] = ledger.execute(
            "SELECT actor, detail FROM lifecycle.send_events WHERE from_state = 'in_doubt'"
        ).fetchall()
        assert actor == "ada"
        assert "asked the provider" in detail


def test_settled_as_sent_counts_from_when_the_answer_was_due(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        hand(ledger, ALL, SettleAs.SENT)
        assert ledger.execute("SELECT sent_at = answer_due FROM lifecycle.sends").fetchone() == (True,)


def test_filter_takes_cohorts_between_two_dates(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        add_cohort(ledger, cohort_date=COHORT_DATE + timedelta(days=1))
        add_sends(ledger, ["2"], cohort_date=COHORT_DATE + timedelta(days=1), state="sending")
        let_time_pass(ledger, timedelta(hours=1))
        keep_up(ledger, (), now=datetime.now(UTC))
        second = COHORT_DATE + timedelta(days=1)
        hand(ledger, Which(None, second, second), SettleAs.SENT)
        assert states(ledger) == {"1": "in_doubt", "2": "sent"}


def test_suppression_holds_for_what_is_sent_again(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        suppress(ledger, user_id="1", reason="unsubscribed")
        hand(ledger, ALL, SettleAs.SEND_AGAIN)
        filter_ledger(ledger, make_campaign(), [COHORT_DATE])
        assert states(ledger) == {"1": "held/suppressed"}


def test_past_the_deadline_send_again_ends_stale_and_the_cohort_is_named(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"], age=timedelta(days=3))
        keep_up(ledger, (), now=datetime.now(UTC))  # closes the cohort
        assert hand(ledger, ALL, SettleAs.SEND_AGAIN).too_late == (COHORT_DATE,)
        keep_up(ledger, (), now=datetime.now(UTC))
        assert states(ledger) == {"1": "held/stale"}


def in_doubt_before_its_time(ledger: psycopg.Connection) -> None:
    """In doubt by the task's own word: the connection broke after the dot."""
    add_sends(ledger, ["1"], state="sending")
    with ledger.transaction():
        ledger.execute("SET LOCAL lifecycle.answer_was_read = 'yes'")
        ledger.execute("UPDATE lifecycle.sends SET state = 'in_doubt' WHERE user_id = '1'")


@pytest.mark.parametrize("verdict", list(SettleAs))
def test_nobody_settles_before_the_answer_is_due(ledger_database: str, verdict: SettleAs) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["2"])
        in_doubt_before_its_time(ledger)
        until = ledger.execute("SELECT max(answer_due) FROM lifecycle.sends").fetchone()
        assert until is not None
        with pytest.raises(LedgerError, match="wait until") as refusal:
            hand(ledger, ALL, verdict)
        assert until[0].isoformat(timespec="seconds") in str(refusal.value)
        assert states(ledger) == {"1": "in_doubt", "2": "in_doubt"}


@pytest.mark.parametrize("verdict", list(SettleAs))
def test_nobody_settles_before_the_lease_of_the_batch_ends(ledger_database: str, verdict: SettleAs) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        ledger.execute(
            "UPDATE lifecycle.batches SET lease_holder = gen_random_uuid(), lease_until = now() + interval '1 minute'"
        )
        with pytest.raises(LedgerError, match="wait until"):
            hand(ledger, ALL, verdict)
        let_time_pass(ledger, timedelta(minutes=2))
        assert hand(ledger, ALL, verdict).users == 1


def test_mail_that_the_server_accepted_is_never_sent_again(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        ledger.execute("UPDATE lifecycle.sends SET queue_id = '4Q1'")
        with pytest.raises(LedgerError, match="the server accepted the mail of user 1"):
            hand(ledger, ALL, SettleAs.SEND_AGAIN)
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never sent again"):
            ledger.execute("UPDATE lifecycle.sends SET state = 'planned'")
        assert hand(ledger, ALL, SettleAs.SENT).users == 1


@pytest.mark.parametrize("obstacle", ["answer", "lease"])
def test_database_refuses_a_hurried_send_again_whoever_asks(ledger_database: str, obstacle: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        if obstacle == "answer":
            in_doubt_before_its_time(ledger)
        else:
            make_doubts(ledger, ["1"])
            ledger.execute("UPDATE lifecycle.batches SET lease_until = now() + interval '1 minute'")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refusal:
            ledger.execute("UPDATE lifecycle.sends SET state = 'planned'")
        assert refusal.value.diag.constraint_name == "send_again_waits_for_the_answer"


@pytest.mark.parametrize(
    ("which", "reason", "message"),
    [
        (Which(["1", "9"]), "x", "not in doubt in campaign day4_follow_up: user 9"),
        (Which(None, date(2026, 4, 1), date(2026, 4, 2)), "x", "nothing of campaign day4_follow_up"),
        (ALL, "  ", "give a reason"),
    ],
)
def test_mistaken_settling_changes_nothing(ledger_database: str, which, reason: str, message: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        with pytest.raises(LedgerError, match=message):
            settle(ledger, CAMPAIGN, which, SettleAs.SENT, reason=reason)
        assert states(ledger) == {"1": "in_doubt"}


def test_two_people_at_once_settle_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger, connect(ledger_database) as other:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        hand(ledger, ALL, SettleAs.SENT)
        with pytest.raises(LedgerError, match="nothing of campaign"):
            hand(other, ALL, SettleAs.SEND_AGAIN)
        assert states(ledger) == {"1": "sent"}


def test_batch_that_a_task_takes_while_a_person_settles_changes_nothing(ledger_database: str) -> None:
    """The person has read the doubt before the task took the lease, and comes to write only afterwards."""
    refused: list[str] = []

    def settling() -> None:
        with connect(ledger_database) as ledger, pytest.raises(LedgerError) as refusal:
            hand(ledger, ALL, SettleAs.SEND_AGAIN)
        refused.append(str(refusal.value))

    with connect(ledger_database) as ledger, connect(ledger_database) as holder:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        with holder.transaction():
            holder.execute("SELECT FROM lifecycle.sends FOR UPDATE")
            thread = threading.Thread(target=settling)
            thread.start()
            while not ledger.execute(
                "SELECT true FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE NOT granted AND datname = current_database()"
            ).fetchone():
                pass
            ledger.execute(
                "UPDATE lifecycle.batches SET lease_holder = gen_random_uuid(), lease_until = now() + interval '1 minute'"
            )
        thread.join()
        assert states(ledger) == {"1": "in_doubt"}
    assert "a task has begun to send these batches again; nothing was changed" in refused[0]
