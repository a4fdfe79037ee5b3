"""The gate in trouble: a ledger that is away for long, faults of its own, a close while somebody waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.gate import Gate
from local_stack.airflow_api import wait_until
from tests.cutting_proxy import CuttingProxy
from tests.integration.ledger.gates import HASH, open_gate, terms
from tests.integration.ledger.rows import add_cohort, add_sends, connect, states


def test_outcome_that_cannot_be_written_before_closing_is_told_and_its_row_waits_for_the_sweep(
    ledger_database: str, ready_ledger
) -> None:
    attempt = uuid4()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody_listens = psycopg.conninfo.make_conninfo(ledger_database, port=listener.getsockname()[1])
    way = [ledger_database]
    gate = Gate(lambda: psycopg.connect(way[0]), terms())
    assert gate.ask("1", attempt, HASH) is Passage.PASSED
    way[0] = nobody_listens
    ready_ledger.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    gate.record(Record("1", attempt, RecordedAs.SENT))
    assert not gate.close(timeout=0.5)
    gate._thread.join(timeout=30)
    assert "1 outcomes were not recorded" in str(gate.failure)
    assert gate.ask("3", uuid4(), HASH) is Passage.NOT_COMMITTED
    assert states(ready_ledger)["1"] == "sending"


NOT_AN_OUTCOME: Any = "sent"
"""Instead of a RecordedAs: a fault of the package's own, which no retry can mend."""


def ask_and_then(gate: Gate, act: Callable[[], object]) -> Passage:
    """Ask for user 1, with the group held back until the question waits; then ``act``."""

    class ActsWhenAwaited(threading.Event):
        def wait(self, timeout: float | None = 30) -> bool:
            act()
            assert super().wait(timeout), "nobody answered"
            return True

    gate.gather_seconds, gate.new_event = 60.0, ActsWhenAwaited
    return gate.ask("1", uuid4(), HASH)


def test_fault_of_the_gates_own_is_told_to_whoever_waits_and_nobody_passes(
    ledger_database: str, ready_ledger
) -> None:
    def fail() -> None:
        gate.record(Record("2", uuid4(), NOT_AN_OUTCOME))
        gate.commit_now()

    with open_gate(ledger_database) as gate:
        assert ask_and_then(gate, fail) is Passage.NOT_COMMITTED
        gate.flush(timeout=20)  # ends with the failure
        assert "the gate could not go on (AttributeError); 1 outcomes were not recorded" in str(gate.failure)
        assert gate.ask("3", uuid4(), HASH) is Passage.NOT_COMMITTED
    assert set(states(ready_ledger).values()) == {"ready"}


def test_question_that_no_group_has_taken_is_answered_when_the_gate_closes(
    ledger_database: str, ready_ledger
) -> None:
    with open_gate(ledger_database) as gate:
        assert ask_and_then(gate, lambda: gate.close(timeout=0)) is Passage.NOT_COMMITTED
    assert set(states(ready_ledger).values()) == {"ready"}


def test_commit_that_the_server_answers_with_a_rollback_lets_nobody_pass(
    ledger_database: str, ready_ledger
) -> None:
    """A constraint that is only looked at by COMMIT, as a team may add one to its ledger."""
    ready_ledger.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not now'; END $$;"
        " CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON lifecycle.sends DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.state = 'sending') EXECUTE FUNCTION refuse()"
    )
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.NOT_COMMITTED
        assert gate.flush(timeout=20)
    assert states(ready_ledger)["1"] == "ready"


def test_commit_answered_with_a_rollback_allows_no_dot_and_is_read_back(
    ledger_database: str, ready_ledger, postgres_server
) -> None:
    """The answer counts, whatever the server did; what it did is read back by key."""
    with CuttingProxy(postgres_server.port) as proxy:
        url = ledger_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with open_gate(url) as gate:
            proxy.deny_next_commit()
            assert gate.ask("1", uuid4(), HASH) is Passage.NOT_COMMITTED
            assert gate.flush(timeout=20)
            moves = ready_ledger.execute(
                "SELECT from_state::text, to_state::text FROM lifecycle.send_events WHERE user_id = '1'"
                " AND attempt IS NOT NULL ORDER BY happened_at"
            ).fetchall()
            assert moves[-1] == ("sending", "ready"), "the commit had happened, and was taken back by key"
            assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_outcome_told_after_the_gate_gave_up_is_recorded_once_the_ledger_is_back(
    ledger_database: str, ready_ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.ledger.gate.RECONNECT_FOR_SECONDS", 0.2)
    attempts = {"1": uuid4(), "2": uuid4()}
    way = [ledger_database]
    gate = Gate(lambda: psycopg.connect(way[0]), terms())
    for user, attempt in attempts.items():
        assert gate.ask(user, attempt, HASH) is Passage.PASSED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way[0] = psycopg.conninfo.make_conninfo(ledger_database, port=listener.getsockname()[1])
    ready_ledger.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    gate.record(Record("1", attempts["1"], RecordedAs.SENT))
    gate.flush(timeout=60)  # ends with the failure
    assert gate.failure is not None
    way[0] = ledger_database
    gate.record(Record("2", attempts["2"], RecordedAs.SENT))
    with gate._wake:
        assert gate._wake.wait_for(gate._idle, 60)
    assert not gate.close(timeout=5), "what was lost from memory stays told"
    assert states(ready_ledger) == {"1": "sending", "2": "sent", "3": "ready"}


def test_question_of_a_gate_that_was_stopped_and_then_fails_is_answered_no(
    ledger_database: str, ready_ledger
) -> None:
    """The stop answers it first; the fault that follows in the same group changes nothing of that."""

    def stop_and_fail() -> None:
        gate.record(Record("2", uuid4(), NOT_AN_OUTCOME))
        gate.stop()
        gate.commit_now()

    with open_gate(ledger_database) as gate:
        assert ask_and_then(gate, stop_and_fail) is Passage.NOT_COMMITTED
        gate.flush(timeout=20)  # ends with the failure
        assert "the gate could not go on (AttributeError)" in str(gate.failure)
    assert set(states(ready_ledger).values()) == {"ready"}


def test_question_that_waits_while_the_gate_gives_up_is_answered_no(
    ledger_database: str, ready_ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.ledger.gate.RECONNECT_FOR_SECONDS", 0)
    recovering, asked = threading.Event(), threading.Event()

    def connect() -> psycopg.Connection[Any]:
        if not gates:
            return psycopg.connect(ledger_database)
        recovering.set()
        assert asked.wait(30)
        raise psycopg.OperationalError("the ledger went away")

    gates: list[Gate] = []
    gates.append(Gate(connect, terms()))
    [gate] = gates
    attempt = uuid4()
    assert gate.ask("2", attempt, HASH) is Passage.PASSED
    ready_ledger.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    gate.record(Record("2", attempt, RecordedAs.SENT))
    assert recovering.wait(30)
    assert ask_and_then(gate, asked.set) is Passage.NOT_COMMITTED
    assert "1 outcomes were not recorded" in str(gate.failure)
    assert not gate.close(timeout=5)
    assert states(ready_ledger) == {"1": "ready", "2": "sending", "3": "ready"}


A_SLOW_COMMIT = """
CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(42);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_is_slow AFTER UPDATE ON lifecycle.sends DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.state = 'sending') EXECUTE FUNCTION wait_for_the_test();
"""


def test_commit_still_under_way_when_its_connection_is_lost_is_waited_for_and_taken_back(
    ledger_database: str, ready_ledger, postgres_server
) -> None:
    def waits_for(kind: str) -> bool:
        waiting = "SELECT FROM pg_locks WHERE locktype = %s AND NOT granted"
        return ready_ledger.execute(waiting, (kind,)).fetchone() is not None

    ready_ledger.execute(A_SLOW_COMMIT)
    ready_ledger.execute("SELECT pg_advisory_lock(42)")
    with CuttingProxy(postgres_server.port) as proxy:
        url = ledger_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with open_gate(url) as gate:

            def cut_during_commit() -> None:
                gate.gather_seconds = 0.0
                gate.commit_now()
                while not waits_for("advisory"):
                    pass
                proxy.cut_now()

            assert ask_and_then(gate, cut_during_commit) is Passage.NOT_COMMITTED
            while not waits_for("transactionid") and not gate.flush(timeout=0):
                pass
            ready_ledger.execute("SELECT pg_advisory_unlock(42)")
            ready_ledger.execute("SELECT FROM lifecycle.sends FOR UPDATE")  # the first COMMIT is through
            assert gate.flush(timeout=20)
    taken_back = "SELECT from_state::text, to_state::text FROM lifecycle.send_events"
    assert ready_ledger.execute(taken_back).fetchall() == [("sending", "ready")]
    assert states(ready_ledger)["1"] == "ready"


def test_question_about_a_row_that_somebody_has_locked_takes_no_outcome_along(
    ledger_database: str, ready_ledger
) -> None:
    attempt = uuid4()
    with open_gate(ledger_database) as gate, psycopg.connect(ledger_database) as somebody:
        assert gate.ask("2", attempt, HASH) is Passage.PASSED
        somebody.execute("SELECT FROM lifecycle.sends WHERE user_id = '1' FOR UPDATE")

        def record_the_other() -> None:
            gate.record(Record("2", attempt, RecordedAs.SENT))
            gate.commit_now()

        assert ask_and_then(gate, record_the_other) is Passage.NOT_COMMITTED
        gate.gather_seconds, gate.new_event = 0.0, threading.Event
        assert gate.flush(timeout=20)
        assert states(ready_ledger) == {"1": "ready", "2": "sent", "3": "ready"}
        assert gate.ask("3", uuid4(), HASH) is Passage.PASSED, "sending goes on while the row is locked"


def test_outcome_of_a_row_that_somebody_has_locked_waits_and_the_others_are_recorded(
    ledger_database: str, ready_ledger
) -> None:
    attempts = {"1": uuid4(), "2": uuid4()}
    with open_gate(ledger_database) as gate, psycopg.connect(ledger_database) as somebody:
        for user, attempt in attempts.items():
            assert gate.ask(user, attempt, HASH) is Passage.PASSED
        somebody.execute("SELECT FROM lifecycle.sends WHERE user_id = '1' FOR UPDATE")
        gate.gather_seconds = 60.0
        for user, attempt in attempts.items():
            gate.record(Record(user, attempt, RecordedAs.SENT))
        gate.commit_now()
        assert wait_until(lambda: states(ready_ledger)["2"] == "sent", 20)
        assert states(ready_ledger)["1"] == "sending"
        assert not gate.flush(timeout=0)
        somebody.rollback()
        assert gate.flush(timeout=20)
    assert states(ready_ledger) == {"1": "sent", "2": "sent", "3": "ready"}


def test_outcome_that_reopens_a_locked_cohort_waits_and_the_others_are_recorded(ledger_database: str) -> None:
    """A late refusal within an hour of the deadline moves the deadline of its cohort."""
    with connect(ledger_database) as ledger, psycopg.connect(ledger_database) as somebody:
        add_cohort(ledger, not_after=datetime.now(UTC) + timedelta(minutes=30))
        attempts = {"1": uuid4(), "2": uuid4()}
        due = datetime.now(UTC) - timedelta(minutes=1)
        add_sends(ledger, ["1"], state="in_doubt", attempt=attempts["1"], answer_due=due)
        add_sends(ledger, ["2"], state="sending", attempt=attempts["2"])
        somebody.execute("UPDATE lifecycle.cohorts SET audience_read_at = now()")
        with open_gate(ledger_database) as gate:
            gate.gather_seconds = 60.0
            gate.record(Record("1", attempts["1"], RecordedAs.RETRY, detail="451 4.3.0 late"))
            gate.record(Record("2", attempts["2"], RecordedAs.SENT))
            gate.commit_now()
            assert wait_until(lambda: states(ledger)["2"] == "sent", 20)
            assert states(ledger)["1"] == "in_doubt"
            somebody.rollback()
            assert gate.flush(timeout=20)
        assert states(ledger) == {"1": "planned", "2": "sent"}
