"""The dot gate on a real Postgres: verdicts, tokens, lost answers, a server that goes away."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from lifecycle_emails.address import address_hash
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.gate import Gate
from lifecycle_emails.ledger.orders import halt, resume, suppress
from lifecycle_emails.ledger.provider import stop_provider
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.upkeep import sweep
from tests.cutting_proxy import CuttingProxy
from tests.integration.ledger.gates import HASH, open_gate, terms
from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, connect, let_time_pass, states


def test_passage_is_committed_with_token_and_answer_due(ledger_database: str, ready_ledger) -> None:
    attempt = uuid4()
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", attempt, HASH) is Passage.PASSED
        row = ready_ledger.execute(
            "SELECT state::text, attempt, address_hash, template_version, extract(epoch FROM answer_due - gate_at)::int"
            " FROM lifecycle.sends WHERE user_id = '1'"
        ).fetchone()
    assert row == ("sending", attempt, HASH, "v1", 670)


def test_second_asker_of_a_row_loses(ledger_database: str, ready_ledger) -> None:
    with open_gate(ledger_database) as one, open_gate(ledger_database) as other:
        passages = {one.ask("1", uuid4(), HASH), other.ask("1", uuid4(), HASH)}
    assert passages == {Passage.PASSED, Passage.LOST}


def test_sixteen_askers_of_a_row_at_once_get_one_passage(ledger_database: str, ready_ledger) -> None:
    gates = [Gate(lambda: psycopg.connect(ledger_database), terms()) for _ in range(16)]
    together = threading.Barrier(16)
    passages: list[Passage] = []

    def ask(gate: Gate) -> None:
        together.wait()
        # on a busy machine somebody waits too long for the row's lock, and is to ask again
        while (passage := gate.ask("1", uuid4(), HASH)) is Passage.NOT_COMMITTED and gate.failure is None:
            pass
        passages.append(passage)

    threads = [threading.Thread(target=ask, args=(gate,)) for gate in gates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for gate in gates:
        gate.close(timeout=5)
    assert sorted(passages) == sorted([Passage.PASSED] + [Passage.LOST] * 15)


def test_suppressed_at_the_gate_is_held(ledger_database: str, ready_ledger) -> None:
    (key,) = ready_ledger.execute(query("address_hash_key")).fetchone()
    suppress(ready_ledger, user_id="1", reason="unsubscribed a moment ago")
    suppress(ready_ledger, address="Two@example.com", reason="complained")
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.SUPPRESSED
        assert gate.ask("2", uuid4(), address_hash(key, "two@EXAMPLE.com")) is Passage.SUPPRESSED
    assert states(ready_ledger) == {"1": "held/suppressed", "2": "held/suppressed", "3": "ready"}


def test_past_the_deadline_at_the_gate_is_held_as_stale(ledger_database: str, ready_ledger) -> None:
    let_time_pass(ready_ledger, timedelta(days=2))
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.STALE
    assert states(ready_ledger)["1"] == "held/stale"


@pytest.mark.parametrize("campaign_id", [None, "day4_follow_up"])
def test_halt_stops_a_running_gate_and_resuming_lets_it_pass(
    ledger_database: str, ready_ledger, campaign_id: str | None
) -> None:
    with open_gate(ledger_database) as gate:
        assert halt(ready_ledger, campaign_id=campaign_id, reason="wrong template")
        assert gate.ask("1", uuid4(), HASH) is Passage.HALTED
        assert states(ready_ledger)["1"] == "ready"
        assert resume(ready_ledger, campaign_id=campaign_id, reason="mended")
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_halt_of_another_campaign_stops_nothing(ledger_database: str, ready_ledger) -> None:
    halt(ready_ledger, campaign_id="another_campaign", reason="not this one")
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_stopped_provider_is_passed_only_by_a_probe(ledger_database: str, ready_ledger) -> None:
    stop_provider(ready_ledger, "lifecycle_smtp", "20 mails in a row were refused")
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.PROVIDER_STOPPED
    with open_gate(ledger_database, probe=True) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_stopped_gate_lets_nobody_pass_and_still_records(ledger_database: str, ready_ledger) -> None:
    attempt = uuid4()
    with open_gate(ledger_database) as gate:
        gate.ask("1", attempt, HASH)
        gate.stop()
        assert gate.ask("2", uuid4(), HASH) is Passage.NOT_COMMITTED
        gate.record(Record("1", attempt, RecordedAs.SENT, queue_id="Q1", detail="dot: 250"))
        assert gate.flush(timeout=5)
    assert states(ready_ledger) == {"1": "sent", "2": "ready", "3": "ready"}


@pytest.mark.parametrize(
    ("recorded_as", "from_sending", "from_in_doubt"),
    [
        (RecordedAs.SENT, "sent", "sent"),
        (RecordedAs.REJECTED, "rejected", "rejected"),
        (RecordedAs.RETRY, "ready", "planned"),
        (RecordedAs.NO_DOT, "ready", "planned"),
        (RecordedAs.IN_DOUBT, "in_doubt", "in_doubt"),
    ],
)
def test_outcome_settles_a_sending_row_and_late_one_in_doubt(
    ledger_database: str, ready_ledger, recorded_as: RecordedAs, from_sending: str, from_in_doubt: str
) -> None:
    prompt, late = uuid4(), uuid4()
    with open_gate(ledger_database) as gate:
        gate.ask("2", late, HASH)
        let_time_pass(ready_ledger, timedelta(minutes=12))
        assert sweep(ready_ledger, "day4_follow_up", [COHORT_DATE]) == 1
        gate.ask("1", prompt, HASH)
        gate.record(Record("1", prompt, recorded_as))
        gate.record(Record("2", late, recorded_as))
        assert gate.flush(timeout=5)
    assert states(ready_ledger) == {"1": from_sending, "2": from_in_doubt, "3": "ready"}


def test_acceptance_that_comes_after_a_person_said_send_again_is_believed(
    ledger_database: str, ready_ledger
) -> None:
    """A sender that was cut off from the ledger and comes back: its mail need not be sent again."""
    tokens = {user_id: uuid4() for user_id in ("1", "2", "3")}
    with open_gate(ledger_database) as gate:
        for user_id, token in tokens.items():
            gate.ask(user_id, token, HASH)
        let_time_pass(ready_ledger, timedelta(minutes=12))
        assert sweep(ready_ledger, "day4_follow_up", [COHORT_DATE]) == 3
        ready_ledger.execute("UPDATE lifecycle.batches SET lease_until = now() - interval '1 s'")
        settle(
            ready_ledger,
            "day4_follow_up",
            Which(),
            SettleAs.SEND_AGAIN,
            reason="nothing in the log",
            actor="ada",
        )
        ready_ledger.execute("UPDATE lifecycle.sends SET state = 'ready' WHERE user_id = '2'")
        ready_ledger.execute(
            "UPDATE lifecycle.sends SET state = 'held', held_reason = 'stale' WHERE user_id = '3'"
        )
        for user_id, token in tokens.items():
            gate.record(Record(user_id, token, RecordedAs.SENT, queue_id=f"Q{user_id}"))
        assert gate.flush(timeout=5)
        assert gate.ask("2", uuid4(), HASH) is Passage.LOST
    assert states(ready_ledger) == {"1": "sent", "2": "sent", "3": "sent"}
    told = ready_ledger.execute(
        "SELECT user_id, from_state::text FROM lifecycle.send_events WHERE to_state = 'sent' ORDER BY user_id"
    )
    assert told.fetchall() == [("1", "planned"), ("2", "ready"), ("3", "held")]


def test_outcome_with_another_token_changes_nothing(ledger_database: str, ready_ledger) -> None:
    with open_gate(ledger_database) as gate:
        gate.ask("1", uuid4(), HASH)
        gate.record(Record("1", uuid4(), RecordedAs.NO_DOT))
        gate.record(Record("2", uuid4(), RecordedAs.SENT))
        assert gate.flush(timeout=5)
    assert states(ready_ledger) == {"1": "sending", "2": "ready", "3": "ready"}


def test_refusal_before_the_gate_changes_no_row_in_flight(ledger_database: str, ready_ledger) -> None:
    """Another attempt has passed meanwhile: what this one heard about the recipient comes too late."""
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED
        gate.record(Record("1", None, RecordedAs.REJECTED, detail="rcpt: 550"))
        assert gate.flush(timeout=5)
    assert states(ready_ledger)["1"] == "sending"


def test_token_that_passed_once_never_passes_again(ledger_database: str, ready_ledger) -> None:
    token = uuid4()
    with open_gate(ledger_database) as gate:
        assert gate.ask("1", token, HASH) is Passage.PASSED
        gate.record(Record("1", token, RecordedAs.NO_DOT))
        assert gate.ask("1", token, HASH) is Passage.NOT_COMMITTED
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_two_questions_about_one_user_that_wait_together_get_one_passage(
    ledger_database: str, ready_ledger
) -> None:
    """Both would be told that the row is theirs, and two dots follow: found by the model of the protocol."""
    passages: list[tuple[str, Passage]] = []
    with open_gate(ledger_database) as gate, connect(ledger_database) as other:

        def ask(user_id: str) -> None:
            passages.append((user_id, gate.ask(user_id, uuid4(), HASH)))

        with (
            other.transaction()
        ):  # the gate's thread waits for this row, so that both questions join one group
            other.execute("SELECT FROM lifecycle.sends WHERE user_id = '3' FOR UPDATE")
            first = threading.Thread(target=ask, args=("3",))
            first.start()
            while not ready_ledger.execute(
                "SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            ).fetchall():
                pass
            both = [threading.Thread(target=ask, args=("1",)) for _ in range(2)]
            for thread in both:
                thread.start()
            with gate._wake:
                assert gate._wake.wait_for(lambda: len(gate._questions) == 2, timeout=30)
        for thread in (first, *both):
            thread.join()
    assert sorted(passage for user_id, passage in passages if user_id == "1") == [
        Passage.LOST,
        Passage.PASSED,
    ]


def test_refusal_before_the_gate_waits_longer_each_time(ledger_database: str, ready_ledger) -> None:
    waits = []
    with open_gate(ledger_database) as gate:
        for _ in range(6):
            gate.record(Record("1", None, RecordedAs.RETRY, detail="rcpt: 450"))
            assert gate.flush(timeout=5)
            waits += ready_ledger.execute(
                "SELECT attempts, round(extract(epoch FROM not_before - now()) / 60)::int FROM lifecycle.sends WHERE user_id = '1'"
            ).fetchall()
    assert waits == [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60)]


def test_key_with_a_pending_outcome_is_gated_only_after_it(ledger_database: str, ready_ledger) -> None:
    with open_gate(ledger_database) as gate:
        first = uuid4()
        assert gate.ask("1", first, HASH) is Passage.PASSED
        gate.record(Record("1", first, RecordedAs.NO_DOT))
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_lost_answer_to_commit_allows_no_dot_and_is_read_back(
    ledger_database: str, ready_ledger, postgres_server
) -> None:
    """The proxy delivers COMMIT to the server and cuts before its answer: committed, and nobody knows."""
    with CuttingProxy(postgres_server.port) as proxy:
        url = ledger_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with open_gate(url) as gate:
            kept = uuid4()
            assert gate.ask("2", kept, HASH) is Passage.PASSED
            gate.gather_seconds = 1.0  # else the outcome alone might make a group, and lose its answer alone
            proxy.cut_before_next_answer()
            gate.record(Record("2", kept, RecordedAs.SENT))
            attempt = uuid4()
            assert gate.ask("1", attempt, HASH) is Passage.NOT_COMMITTED
            assert gate.flush(timeout=20)
            event = ready_ledger.execute(
                "SELECT from_state::text, to_state::text, attempt FROM lifecycle.send_events WHERE user_id = '1'"
            ).fetchall()
            assert event == [("sending", "ready", attempt)], (
                "the commit had happened, and was taken back by key"
            )
            assert states(ready_ledger) == {"1": "ready", "2": "sent", "3": "ready"}
            assert gate.ask("1", uuid4(), HASH) is Passage.PASSED


def test_server_that_drops_connections_loses_no_outcome(ledger_database: str, ready_ledger) -> None:
    attempts: dict[str, UUID] = {user: uuid4() for user in ("1", "2", "3")}
    with open_gate(ledger_database) as gate:
        for user, attempt in attempts.items():
            assert gate.ask(user, attempt, HASH) is Passage.PASSED
            ready_ledger.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
            gate.record(Record(user, attempt, RecordedAs.SENT))
            assert gate.flush(timeout=20)
    assert set(states(ready_ledger).values()) == {"sent"}


@pytest.mark.parametrize("name", ["pass_gate", "record_outcomes", "lock_sends"])
def test_gate_looks_rows_up_by_key_before_any_statistics_were_gathered(
    ledger_database: str, name: str
) -> None:
    """A plan that walks the cohort makes the gate slower by the size of the cohort, until its time-out."""
    arguments = {
        "campaign": "day4_follow_up", "smtp_conn_id": "x", "template_version": "v", "code_version": "v", "probe": False, "answer_seconds": 600.0,
        "user_ids": ["1", "2"], "attempts": [uuid4(), uuid4()], "address_hashes": [HASH, HASH],
        "verdicts": ["sent"] * 2, "held_reasons": [None] * 2, "queue_ids": [None] * 2, "details": [None] * 2,
    }  # fmt: skip
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, map(str, range(2000)), state="ready")
        plan = "\n".join(row[0] for row in ledger.execute(b"EXPLAIN " + query(name), arguments))
    assert "sends_pkey" in plan
    assert "sends_by_cohort" not in plan
    assert "Seq Scan on sends" not in plan


def test_lease_is_renewed_while_groups_follow_each_other(
    ledger_database: str, ready_ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.ledger.gate.LEASE_SECONDS", 0.4)
    holder = uuid4()
    ready_ledger.execute("UPDATE lifecycle.batches SET lease_holder = %s, lease_until = now()", (holder,))
    before = ready_ledger.execute("SELECT lease_until FROM lifecycle.batches").fetchone()
    with open_gate(ledger_database, holder=holder) as gate:
        renewed, deadline = before, time.monotonic() + 10
        while renewed == before and time.monotonic() < deadline:
            # a group every few milliseconds, never a pause as long as a quarter of the lease
            gate.record(Record("nobody", uuid4(), RecordedAs.SENT))
            assert gate.flush(timeout=5)
            renewed = ready_ledger.execute("SELECT lease_until FROM lifecycle.batches").fetchone()
    assert renewed != before


@pytest.mark.parametrize("words", ["nul \x00", "lone surrogate \ud800"])
def test_outcome_whose_words_cannot_be_stored_is_recorded_without_them_and_takes_no_other_along(
    ledger_database: str, ready_ledger, words: str
) -> None:
    attempts = {"1": uuid4(), "2": uuid4()}
    with open_gate(ledger_database) as gate:
        for user, attempt in attempts.items():
            assert gate.ask(user, attempt, HASH) is Passage.PASSED
        gate.record(Record("2", attempts["2"], RecordedAs.SENT, detail=words))
        gate.record(Record("1", attempts["1"], RecordedAs.SENT, queue_id="Q1"))
        assert gate.flush(timeout=10)
        assert gate.ask("3", uuid4(), HASH) is Passage.PASSED
    assert states(ready_ledger) == {"1": "sent", "2": "sent", "3": "sending"}


def test_two_outcomes_of_one_user_are_recorded_in_their_order(ledger_database: str, ready_ledger) -> None:
    attempt = uuid4()
    with open_gate(ledger_database) as gate:
        gate.ask("1", attempt, HASH)
        gate.record(Record("1", attempt, RecordedAs.RETRY))
        gate.record(Record("1", None, RecordedAs.REJECTED))
        assert gate.flush(timeout=5)
    assert states(ready_ledger)["1"] == "rejected"
