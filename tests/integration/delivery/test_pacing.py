"""Turns of a throttle in trouble: a ledger that is away, leases that end meanwhile, a day that ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.delivery.pacing import Pacing
from lifecycle_emails.ledger.gate import uptime
from lifecycle_emails.ledger.throttle import throttle_now
from lifecycle_emails.throttle import Throttle
from tests.integration.ledger.rows import connect

SMTP = "lifecycle_smtp"
PACING = "lifecycle_emails.delivery.pacing"


@pytest.fixture
def ledger(ledger_database: str):
    with connect(ledger_database) as connection:
        yield connection


class Way:
    """The way to the ledger, which can be closed for good."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_closed = False

    def __call__(self) -> psycopg.Connection[Any]:
        if self.is_closed:
            raise psycopg.OperationalError("the ledger went away")
        return psycopg.connect(self.url)

    def close(self, ledger: psycopg.Connection[Any]) -> None:
        self.is_closed = True
        ledger.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def in_thread(work: Callable[[], bool]) -> Callable[[], bool]:
    """Begin ``work`` in a thread; what is returned waits for its answer."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()

    def answer() -> bool:
        thread.join(timeout=30)
        return answers[0]

    return answer


def test_ledger_that_stays_away_ends_the_waiting_and_says_so(
    ledger, ledger_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{PACING}.RECONNECT_FOR_SECONDS", 0.2)
    monkeypatch.setattr(f"{PACING}.ASK_AGAIN_SECONDS", 0.3)
    way = Way(ledger_database)
    pacing = Pacing(way, SMTP, Throttle(mails_per_second=100), uuid4(), 1)
    way.close(ledger)
    assert not pacing.turn(0)
    assert "the throttle could not go on (LedgerError); nobody was mailed by it" in str(pacing.failure)
    assert not pacing.turn(0)
    pacing.close()
    assert throttle_now(ledger, SMTP).granted_today == 0


def test_turn_that_comes_after_the_connections_lease_ended_is_not_given(
    ledger, ledger_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment was granted; the ledger is away since, and by now others may hold the connections."""
    monkeypatch.setattr(f"{PACING}.RENEW_SECONDS", 0.3)
    monkeypatch.setattr(f"{PACING}.TRUSTED_SECONDS", 0.5)
    way = Way(ledger_database)
    pacing = Pacing(way, SMTP, Throttle(mails_per_second=0.3, connections=1), uuid4(), 1)
    assert pacing.turn(0)
    second = in_thread(lambda: pacing.turn(0))
    while throttle_now(ledger, SMTP).granted_today < 2:
        pass
    way.close(ledger)
    assert not second()
    assert pacing.refusal.because == "the lease of its connections ended"
    pacing.close()


@pytest.mark.parametrize("seconds", [0.05, 600])
def test_complaint_that_the_ledger_did_not_hear_is_made_again_at_the_latest_when_the_task_ends(
    ledger,
    ledger_database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
) -> None:
    monkeypatch.setattr(f"{PACING}.ASK_AGAIN_SECONDS", seconds)
    way = Way(ledger_database)
    pacing = Pacing(way, SMTP, Throttle(mails_per_second=16), uuid4(), 1)
    way.close(ledger)
    pacing.complain("421 4.7.0 too fast")
    deadline = uptime() + 30
    while "the throttle got no answer" not in caplog.text:
        assert uptime() < deadline
    way.is_closed = False
    if seconds == 600:
        pacing.close()
    while (now := throttle_now(ledger, SMTP)).slowed_at is None:
        assert uptime() < deadline
    assert now.slowed_because == "421 4.7.0 too fast"
    pacing.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = uptime() + 30
    while not is_so():
        assert uptime() < deadline


def somebody_waits_for_the_lock_of(transaction) -> bool:
    waiting = transaction.execute(
        "SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    )
    return waiting.rowcount > 0


def test_complaint_made_while_an_earlier_one_is_written_down_is_written_down_too(
    ledger, ledger_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.ledger.throttle.ONE_COMPLAINT_SECONDS", 0)
    pacing = Pacing(lambda: psycopg.connect(ledger_database), SMTP, Throttle(mails_per_second=16), uuid4(), 1)
    with connect(ledger_database) as person, person.transaction():
        person.execute("SELECT FROM lifecycle.throttles FOR UPDATE")
        pacing.complain("421 4.7.0 too fast")
        wait_until(lambda: somebody_waits_for_the_lock_of(person))
        pacing.complain("421 4.7.0 still too fast")
    wait_until(lambda: throttle_now(ledger, SMTP).slowed_because == "421 4.7.0 still too fast")
    halved_twice = ledger.execute("SELECT slowed_to FROM lifecycle.throttles").fetchone()
    assert halved_twice == (pytest.approx(4, rel=0.05),)
    pacing.close()


def test_lanes_left_over_by_a_day_that_ends_get_their_turns_of_the_next_day(
    ledger, ledger_database: str
) -> None:
    """A zone in which it is midnight in three seconds: POSIX's notation has offsets to the second.

    The first to ask waits for a lock until all have asked, so that the group of the others crosses midnight.
    """
    pacing = Pacing(lambda: psycopg.connect(ledger_database), SMTP, Throttle(mails_per_second=2), uuid4(), 4)
    asked = []

    def event_of_one_who_asks() -> threading.Event:
        asked.append(threading.Event())
        return asked[-1]

    pacing.new_event = event_of_one_who_asks
    with connect(ledger_database) as person, person.transaction():
        person.execute("SELECT FROM lifecycle.throttles FOR UPDATE")
        turns = [in_thread(lambda: pacing.turn(0)) for _ in range(9)]
        wait_until(lambda: len(asked) == 9 and somebody_waits_for_the_lock_of(person))
        person.execute(
            "UPDATE lifecycle.throttles SET day = day - 2, timezone = (SELECT format('<x>%s', extract(epoch"
            " FROM moment - date_trunc('day', moment))::int * interval '1 s' + interval '3 s')"
            " FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS moment) AS clock)"
        )
    assert [turn() for turn in turns] == [True] * 9
    granted = ledger.execute("SELECT granted FROM lifecycle.throttles").fetchone()
    assert granted is not None
    assert 0 < granted[0] < 9  # of the new day alone
    pacing.close()
