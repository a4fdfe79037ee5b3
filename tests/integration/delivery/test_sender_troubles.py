"""A task whose connections or ledger leave it in mid-send: what the others do, and what is told."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import replace

import psycopg
import pytest

from lifecycle_emails.delivery.sender import Sent, send_group
from lifecycle_emails.errors import LedgerError
from tests.daily_run import DailyRun
from tests.scripted_smtp_server import Accept, BlackHole, Eof, Queued, Reply, ScriptedSmtpServer, Until


def test_connection_that_the_server_closed_while_idle_is_opened_anew_for_the_same_mail(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, 2)
    smtp_server.on("mail", Reply(250, "2.1.0 Ok"), times=1)
    smtp_server.on("mail", Reply(421, "4.4.2 idle for too long"), Eof(), times=1)
    [sent] = daily_run.send(daily_run.plan())
    assert (sent.sent, sent.refused_for_now) == (2, 0)
    assert len(smtp_server.dialogues) == 2
    assert set(daily_run.states().values()) == {"sent"}


def test_stop_waits_only_so_long_for_an_answer_that_does_not_come(
    daily_run: DailyRun, smtp_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.delivery.sender.ANSWERS_AFTER_STOP_SECONDS", 0.3)
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, 2, 3)
    limited = daily_run.plan()
    smtp_server.on("dot", Accept(), BlackHole())
    results: list[Sent] = []
    thread = threading.Thread(target=lambda: results.extend(daily_run.send(limited)))
    thread.start()
    smtp_server.wait_until("dot")
    daily_run.stop.set()
    thread.join(timeout=8)  # the dot's own time-out is 10 s
    assert not thread.is_alive()
    assert (results[0].stopped_by, results[0].sent, results[0].due_now) == ("stop", 0, 2)
    assert Counter(daily_run.states().values()) == {"sending": 1, "ready": 2}
    assert len(smtp_server.accepted) == 1


def test_connection_that_cannot_be_opened_leaves_its_work_to_the_others(
    daily_run: DailyRun, smtp_server, caplog: pytest.LogCaptureFixture
) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 11))
    limited = daily_run.plan()
    smtp_server.on("connect", Reply(421, "4.7.0 too many connections"), Eof(), times=1)
    [sent] = daily_run.send(limited)
    assert (sent.sent, sent.due_now) == (10, 0)
    assert "a connection could not be used, the others did its work" in caplog.text
    assert max(smtp_server.copies().values()) == 1


def test_ledger_that_stays_away_in_mid_send_ends_the_task_and_leaves_one_mail_in_flight(
    daily_run: DailyRun, smtp_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ledger.gate", "delivery.sender"):
        monkeypatch.setattr(f"lifecycle_emails.{module}.RECONNECT_FOR_SECONDS", 0.5)
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, 2)
    [group] = daily_run.plan().groups
    away, answer = threading.Event(), threading.Event()
    smtp_server.on("dot", Accept(), Until(answer), Queued())

    def connect() -> psycopg.Connection:
        if away.is_set():
            raise psycopg.OperationalError("the ledger is away")
        return psycopg.connect(daily_run.ledger_url)

    failures: list[BaseException] = []

    def sending() -> None:
        with pytest.raises(LedgerError, match="Nobody is mailed twice") as failure:
            send_group(replace(daily_run.tools, connect_ledger=connect), group, stop=daily_run.stop)
        failures.append(failure.value)

    thread = threading.Thread(target=sending)
    thread.start()
    smtp_server.wait_until("dot", seconds=60)
    away.set()
    daily_run.ledger.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    answer.set()
    thread.join()
    assert len(failures) == 1
    assert sorted(daily_run.states().values()) == ["ready", "sending"]
    assert len(smtp_server.accepted) == 1


def test_progress_is_told_while_it_goes_on(
    daily_run: DailyRun, smtp_server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lifecycle_emails.delivery.sender.PROGRESS_EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    daily_run.add_users(1, 2)
    daily_run.send(daily_run.plan())
    assert "of 2 mails offered" in caplog.text


def test_gate_that_never_commits_ends_the_batch_instead_of_offering_it_for_ever(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    """A fault of the ledger that no repetition mends: the task must fail, be seen, and be retried later."""
    daily_run.add_users(1, 2)
    limited = daily_run.plan()
    daily_run.ledger.execute(
        "CREATE TRIGGER nothing_passes BEFORE UPDATE ON lifecycle.sends FOR EACH ROW"
        " WHEN (NEW.state = 'sending') EXECUTE FUNCTION lifecycle.refuse('a fault of the ledger')"
    )
    give_up = threading.Timer(30, daily_run.stop.set)
    give_up.start()
    [sent] = daily_run.send(limited)
    give_up.cancel()
    assert (sent.sent, sent.due_now, sent.stopped_by) == (0, 2, None)
    assert smtp_server.copies() == Counter()
