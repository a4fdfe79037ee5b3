"""A ledger that went back in time is noticed, sends nothing, and after the release nobody gets a second copy."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.errors import ConfigurationError, LedgerError
from lifecycle_emails.ledger.alerts import undelivered_alerts
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.orders import resume
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.witness import (
    DatabaseWitness,
    FileWitness,
    trust_again,
    watch,
    witness_of,
)
from tests.daily_run import today
from tests.integration.ledger.going_back import ask_gate, let_go, now, say_moved
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    states,
    without_triggers,
)
from tests.smtp_script import Reply

CAMPAIGN = "day4_follow_up"


@pytest.fixture
def witness(tmp_path: Path) -> FileWitness:
    return FileWitness(tmp_path / "outside" / "witness.json")


def test_ledger_in_its_place_makes_a_mark_in_every_round(ledger_database: str, witness: FileWitness) -> None:
    with connect(ledger_database) as ledger:
        assert watch(ledger, witness) is None
        first = witness.read()
        assert watch(ledger, witness) is None
        second = witness.read()
        assert first is not None
        assert second is not None
        assert second.position > first.position
        assert undelivered_alerts(ledger, None) == []


@pytest.mark.parametrize(
    ("column", "word"), [("system_identifier", "another cluster"), ("timeline", "another timeline"), ("sends_oid", "another table")]
)  # fmt: skip
def test_other_server_halts_the_gate_at_once_and_is_told_once(
    ledger_database: str, column: str, word: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        ledger.execute(f"UPDATE lifecycle.known_server SET {column} = {column}::bigint + 1".encode())
        assert ask_gate(ledger_database) is Passage.HALTED
        assert word in str(watch(ledger, None))
        assert watch(ledger, None) is not None
        [alert] = undelivered_alerts(ledger, None)
        assert (alert.kind, word in alert.facts["finding"]) == ("ledger_went_back", True)
        [problem] = reconcile(ledger, make_campaign(), [COHORT_DATE]).problems
        assert "the ledger may have gone back in time" in problem
        assert states(ledger) == {"1": "ready"}


def test_ledger_that_knows_nothing_of_its_server_is_not_trusted_until_a_person_says_so(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        ledger.execute("DELETE FROM lifecycle.known_server")
        assert ask_gate(ledger_database) is Passage.HALTED
        assert "known_server is empty" in str(watch(ledger, None))
        let_go(ledger, None, None)
        assert watch(ledger, None) is None
        assert ask_gate(ledger_database) is Passage.PASSED


def test_witness_without_a_memory_is_told_of_once_a_day_and_remembers_from_then_on(
    ledger_database: str, witness: FileWitness, tmp_path: Path
) -> None:
    with connect(ledger_database) as ledger:
        watch(ledger, witness)
        watch(ledger, witness)
        assert undelivered_alerts(ledger, None) == []
        for number in range(2):
            other = FileWitness(tmp_path / f"{number}.json")
            assert watch(ledger, other) is None
            assert other.read() is not None
        assert [alert.kind for alert in undelivered_alerts(ledger, None)] == ["witness_forgot"]
        let_time_pass(ledger, timedelta(days=1))
        watch(ledger, FileWitness(tmp_path / "of_the_next_day.json"))
        assert len(undelivered_alerts(ledger, None)) == 2


def test_resume_does_not_lift_it(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        say_moved(ledger)
        watch(ledger, None)
        resume(ledger, reason="x")
        assert ask_gate(ledger_database) is Passage.HALTED


def test_forgotten_mark_halts_whatever_was_written_since(ledger_database: str, witness: FileWitness) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        watch(ledger, witness)
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        for _ in range(3):
            ledger.execute(query("make_mark"))
        assert "a mark" in str(watch(ledger, witness))
        assert ask_gate(ledger_database) is Passage.HALTED


def test_new_empty_ledger_beside_an_old_witness_halts(
    ledger_database: str, empty_database: str, witness: FileWitness
) -> None:
    with connect(ledger_database) as ledger:
        watch(ledger, witness)
    with connect(empty_database) as ledger:
        migrate(ledger)
        assert "that this ledger has not" in str(watch(ledger, witness))


def test_release_puts_in_doubt_who_may_have_been_sent_and_nobody_else(ledger_database: str) -> None:
    today = now().date()
    due, later, over = today - timedelta(days=5), today - timedelta(days=2), date(2026, 5, 1)
    with connect(ledger_database) as ledger:
        for day, deadline in (
            (due, now() + timedelta(days=1)),
            (later, now() + timedelta(days=5)),
            (over, now() - timedelta(days=9)),
        ):
            add_cohort(ledger, cohort_date=day, not_after=deadline)
        for state in ("planned", "held", "ready", "sending", "sent", "rejected", "in_doubt"):
            add_sends(ledger, [f"due {state}"], cohort_date=due, state=state)
        add_sends(ledger, ["not due yet"], cohort_date=later)
        add_sends(ledger, ["over"], cohort_date=over, state="held", held_reason="stale")
        say_moved(ledger)
        assert let_go(ledger, None, now() - timedelta(hours=3)) == 3
        assert states(ledger) == {
            "due planned": "in_doubt", "due held": "in_doubt", "due ready": "in_doubt", "due sending": "sending",
            "due sent": "sent", "due rejected": "rejected", "due in_doubt": "in_doubt",
            "not due yet": "planned", "over": "held/stale",
        }  # fmt: skip
        events = ledger.execute(
            "SELECT user_id, to_state::text, actor FROM lifecycle.send_events ORDER BY user_id"
        ).fetchall()
        assert events == [(f"due {state}", "in_doubt", "ada") for state in ("held", "planned", "ready")]
        assert watch(ledger, None) is None


def day_that_is_not_due_yet() -> date:
    """Return the day of a cohort whose tick is the day after tomorrow; tomorrow's counts from 21:00 on."""
    return now().date() - timedelta(days=2)


def test_users_first_planned_into_a_lost_cohort_are_in_doubt_and_later_ones_are_not(daily_run) -> None:
    daily_run.add_users(1, 2)
    since = now() - timedelta(hours=1)
    let_go(daily_run.ledger, None, since)
    daily_run.plan()
    assert daily_run.states() == {"1": "in_doubt", "2": "in_doubt"}
    daily_run.add_users(3)
    daily_run.plan()
    assert daily_run.states()["3"] == "in_doubt"
    not_due_yet = day_that_is_not_due_yet()
    daily_run.add_users(4, day=not_due_yet)
    daily_run.extract(not_due_yet)
    assert daily_run.states()["4"] == "planned"


def test_user_moved_into_a_lost_cohort_is_in_doubt(daily_run) -> None:
    not_due_yet = day_that_is_not_due_yet()
    daily_run.add_users(1, day=not_due_yet)
    let_go(daily_run.ledger, None, now() - timedelta(hours=1))
    daily_run.extract(not_due_yet)
    assert daily_run.states() == {"1": "planned"}
    daily_run.source.execute("UPDATE users SET created_at = created_at - interval '2 days'")
    daily_run.extract()
    assert daily_run.states() == {"1": "in_doubt"}


def test_user_attempted_before_the_backup_and_moved_into_a_lost_cohort_is_in_doubt(
    daily_run, smtp_server
) -> None:
    """In the time that is forgotten the user may have been moved as well, and mailed."""
    yesterday = today() - timedelta(days=1)
    smtp_server.on("dot", Reply(451, "4.3.0 disk full"), times=1)
    daily_run.add_users(1, day=yesterday)
    daily_run.send(daily_run.plan(yesterday))
    let_time_pass(daily_run.ledger, timedelta(days=10))
    let_go(daily_run.ledger, None, now() - timedelta(hours=1))
    assert daily_run.states() == {"1": "ready"}  # that cohort was over by then
    daily_run.source.execute("UPDATE users SET created_at = created_at + interval '1 day'")
    daily_run.extract()
    assert daily_run.states() == {"1": "in_doubt"}


def test_settled_as_send_again_is_not_doubted_anew(daily_run) -> None:
    daily_run.add_users(1)
    let_go(daily_run.ledger, None, now() - timedelta(hours=1))
    daily_run.plan()
    settle(daily_run.ledger, "welcome", Which(), SettleAs.SEND_AGAIN, reason="not in the log")
    daily_run.plan()
    assert daily_run.states() == {"1": "ready"}


@pytest.mark.parametrize("state", ["planned", "held", "ready"])
def test_database_refuses_this_doubt_without_a_restore(ledger_database: str, state: str) -> None:
    into_doubt = (
        "UPDATE lifecycle.sends SET state = 'in_doubt', held_reason = NULL, attempt = gen_random_uuid(),"
        " ready_at = now(), gate_at = %s, answer_due = %s"
    )
    with connect(ledger_database) as ledger:
        add_cohort(ledger, not_after=now() + timedelta(days=1))
        add_sends(ledger, ["1"], state=state, attempt=uuid4())
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as refusal:
            ledger.execute(into_doubt, (now() - timedelta(hours=1), now()))
        assert refusal.value.diag.constraint_name == "send_transition_is_legal"
        with without_triggers(ledger):
            ledger.execute("UPDATE lifecycle.cohorts SET not_after = now() - interval '9 days'")
        let_go(ledger, None, now() - timedelta(hours=1))  # covers no cohort
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            ledger.execute(
                into_doubt, ledger.execute("SELECT since, released_at FROM lifecycle.restores").fetchone()
            )


@pytest.mark.parametrize(
    ("since", "reason", "message"),
    [
        (timedelta(hours=1), "x", "is still to come"),
        (-timedelta(days=400), "x", "more than a year ago"),
        (-timedelta(hours=1), " ", "give a reason"),
        (-timedelta(hours=1), "asked ada@example.com", "the reason holds an @"),
    ],
)
def test_mistaken_release_changes_nothing(ledger_database: str, since, reason: str, message: str) -> None:
    with connect(ledger_database) as ledger:
        say_moved(ledger)
        watch(ledger, None)
        with pytest.raises(LedgerError, match=message):
            trust_again(ledger, None, since=now() + since, now=now(), reason=reason)
        assert watch(ledger, None) is not None


def test_nothing_lost_is_not_believed_against_the_witness(ledger_database: str, witness: FileWitness) -> None:
    with connect(ledger_database) as ledger:
        watch(ledger, witness)
        say_moved(ledger)
        watch(ledger, witness)
        assert let_go(ledger, witness, None) == 0
        assert watch(ledger, witness) is None
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        watch(ledger, witness)
        with pytest.raises(LedgerError, match="something was lost; nothing was changed"):
            let_go(ledger, witness, None)


def test_other_witness_that_saw_the_lost_time_too_halts_nothing_more(
    ledger_database: str, witness: FileWitness, tmp_path: Path
) -> None:
    other = FileWitness(tmp_path / "other.json")
    with connect(ledger_database) as ledger:
        watch(ledger, witness)
        watch(ledger, other)
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        watch(ledger, witness)
        let_go(ledger, witness, now() - timedelta(hours=1))
        assert watch(ledger, other) is None
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        assert watch(ledger, other) is not None


def test_second_database_is_a_witness(ledger_database: str, empty_database: str) -> None:
    witness = witness_of(empty_database)
    assert isinstance(witness, DatabaseWitness)
    with connect(ledger_database) as ledger:
        assert watch(ledger, witness) is None
        assert watch(ledger, witness) is None
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        assert watch(ledger, witness) is not None


def test_witness_that_cannot_be_used_is_one_clear_error(ledger_database: str, tmp_path: Path) -> None:
    (tmp_path / "witness.json").write_text("{}")
    with connect(ledger_database) as ledger:
        with pytest.raises(LedgerError, match=r"witness .* cannot be read \(KeyError\), so nothing is sent"):
            watch(ledger, FileWitness(tmp_path / "witness.json"))
        with pytest.raises(LedgerError, match="witness database cannot be read"):
            watch(ledger, witness_of("postgresql://127.0.0.1:1/x"))
    with pytest.raises(ConfigurationError, match="write an absolute path"):
        witness_of("witness.json")
    assert witness_of("") is None


def test_witness_that_cannot_be_written_is_one_clear_error(
    ledger_database: str, empty_database: str, tmp_path: Path
) -> None:
    no_room_for_a_suffix = FileWitness(tmp_path / ("w" * 250))
    in_database = witness_of(empty_database)
    with connect(ledger_database) as ledger, connect(empty_database) as other:
        with pytest.raises(
            LedgerError, match=r"cannot be written \(File name too long\), so nothing is sent"
        ):
            watch(ledger, no_room_for_a_suffix)
        watch(ledger, in_database)
        other.execute("ALTER TABLE lifecycle_witness ADD CHECK (false) NOT VALID")
        with pytest.raises(LedgerError, match="witness database cannot be written"):
            watch(ledger, in_database)
