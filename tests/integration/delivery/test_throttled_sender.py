"""A throttled SMTP connection: real Postgres, real SMTP; the server's own list of arrivals is the judge."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bench.throttle import largest_excess
from lifecycle_emails.delivery.pacing import RENEW_SECONDS
from lifecycle_emails.delivery.probe import probe_provider
from lifecycle_emails.delivery.sender import Sent, send_group
from lifecycle_emails.errors import DeliveryError, LedgerError
from lifecycle_emails.ledger.orders import halt, resume
from lifecycle_emails.ledger.provider import stop_provider, stopped_providers
from lifecycle_emails.ledger.throttle import lease_connections, state_throttle, take_grants, throttle_now
from lifecycle_emails.throttle import Throttle
from tests.daily_run import DailyRun
from tests.integration.ledger.rows import let_time_pass
from tests.scripted_smtp_server import Eof, Reply, ScriptedSmtpServer

SMTP = "lifecycle_smtp"


def send(daily_run: DailyRun, **throttle: Any) -> Sent:
    """Plan and send one group under a throttle."""
    daily_run.throttle = Throttle.model_validate(throttle)
    [sent] = daily_run.send(daily_run.plan())
    return sent


def excess(server: ScriptedSmtpServer, mails_per_second: float) -> float:
    return largest_excess([accepted.at for accepted in server.accepted], mails_per_second)


def test_largest_excess_is_over_every_span() -> None:
    assert largest_excess([], 10) == 0
    assert largest_excess([5.0], 10) == 1
    assert largest_excess([0.0, 0.1, 0.2, 0.3], 10) == pytest.approx(1)
    assert largest_excess([0.0, 9.0, 9.0, 9.0, 9.05, 20.0], 10) == pytest.approx(3.5)


def test_mails_arrive_at_most_at_the_rate(daily_run: DailyRun, smtp_server: ScriptedSmtpServer) -> None:
    daily_run.include.write_campaign(connections=3)
    daily_run.add_users(*range(1, 61))
    sent = send(daily_run, mails_per_second=20)
    assert (sent.sent, sent.due_now, sent.throttled_until) == (60, 0, None)
    assert excess(smtp_server, 20) <= 3
    assert sent.seconds > 55 / 20
    assert throttle_now(daily_run.ledger, SMTP).granted_today == 60


def test_what_the_source_says_of_a_user_is_read_shortly_before_the_users_turn(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.delivery.mails.READ_AHEAD_SECONDS", 0.2)  # two mails
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(11, 21))
    daily_run.throttle = Throttle(mails_per_second=10)
    limited = daily_run.plan()
    thread = threading.Thread(target=lambda: daily_run.send(limited))
    thread.start()
    smtp_server.wait_until("dot")
    daily_run.source.execute("DELETE FROM users WHERE user_id = 20")
    daily_run.source.execute("UPDATE users SET full_name = 'Grace Example' WHERE user_id = 19")
    thread.join(timeout=60)
    assert daily_run.states()["20"] == "held/left_audience"
    [last] = [one for one in smtp_server.accepted if one.reference == ("welcome", "19")]
    assert b"Grace Example" in last.content
    assert len(smtp_server.accepted) == 9


def test_one_connection_is_enough_for_most_of_the_rate(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 11))
    sent = send(daily_run, mails_per_second=10)
    assert sent.sent == 10
    assert excess(smtp_server, 10) <= 1
    # A single turn that is missed, and found only when the next lease is due, takes longer than all of them.
    assert sent.seconds < RENEW_SECONDS


def test_tasks_at_once_share_the_rate_and_the_connections(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=3, batch_size=20)
    daily_run.add_users(*range(1, 81))
    daily_run.throttle = Throttle(mails_per_second=40, connections=8)
    limited = daily_run.plan()
    assert len(limited.groups) == 4
    results: list[Sent] = []

    def work(group: Any) -> None:
        results.append(send_group(daily_run.tools, group, stop=threading.Event()))

    threads = [threading.Thread(target=work, args=(group,)) for group in limited.groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sent in results:
        assert (sent.stopped_by, sent.due_now) in ((None, 0), ("throttled", 20))
    assert excess(smtp_server, 40) <= 8
    assert sum(sent.sent for sent in results) >= 60
    assert len(smtp_server.dialogues) <= 8
    daily_run.send(daily_run.plan())
    assert max(smtp_server.copies().values()) == 1
    assert len(smtp_server.accepted) == 80


def test_wait_of_more_than_five_seconds_ends_the_task_and_keeps_its_users_ready(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.add_users(1, 2, 3)
    sent = send(daily_run, mails_per_second=0.1)
    assert (sent.sent, sent.due_now, sent.stopped_by) == (1, 2, "throttled")
    (last_at,) = daily_run.ledger.execute("SELECT last_grant_at FROM lifecycle.throttles").fetchone()
    free_at = last_at + timedelta(seconds=10)
    assert sent.throttled_until == free_at > datetime.now(UTC)
    assert Counter(daily_run.states().values()) == {"sent": 1, "ready": 2}
    leases = "SELECT count(*) FROM lifecycle.batches WHERE lease_until > now()"
    assert daily_run.ledger.execute(leases).fetchone() == (0,)
    assert sent.as_dict()["throttled_until"] == free_at.isoformat()


def test_task_that_has_worked_for_long_ends_as_one_that_waits_and_the_next_goes_on(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.delivery.pacing.WORK_SECONDS", 1.0)
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 61))
    daily_run.throttle = Throttle(mails_per_second=20)
    limited = daily_run.plan()
    [sent] = daily_run.send(limited)
    assert sent.stopped_by == "throttled"
    assert 0 < sent.sent < 60
    assert sent.due_now == 60 - sent.sent
    assert sent.throttled_until is not None
    assert sent.throttled_until <= datetime.now(UTC)
    monkeypatch.undo()
    [rest] = daily_run.send(limited)
    assert rest.sent == 60 - sent.sent
    assert max(smtp_server.copies().values()) == 1


def test_daily_maximum_reached_leaves_the_rest_ready_for_a_later_day(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.add_users(*range(1, 11))
    sent = send(daily_run, mails_per_day=4)
    assert (sent.sent, sent.due_now, sent.stopped_by) == (4, 6, "throttled_for_today")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert sent.throttled_until == datetime.combine(tomorrow, datetime.min.time(), UTC)
    assert Counter(daily_run.states().values()) == {"sent": 4, "ready": 6}
    daily_run.ledger.execute("UPDATE lifecycle.throttles SET day = day - 1")
    assert send(daily_run, mails_per_day=400).sent == 6
    assert max(smtp_server.copies().values()) == 1


def test_task_without_a_free_connection_comes_back_later(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, 2)
    state_throttle(daily_run.ledger, SMTP, Throttle(connections=2))
    assert lease_connections(daily_run.ledger, SMTP, uuid4(), 2) == 2
    daily_run.throttle = Throttle(connections=2)
    limited = daily_run.plan()
    readers: list[psycopg.Connection[Any]] = []

    def connect_source() -> psycopg.Connection[Any]:
        readers.append(psycopg.connect(daily_run.source_url))
        return readers[-1]

    tools = replace(daily_run.tools, connect_source=connect_source)
    sent = send_group(tools, limited.groups[0], stop=daily_run.stop)
    assert (sent.sent, sent.due_now, sent.stopped_by) == (0, 2, "throttled")
    assert sent.throttled_until > datetime.now(UTC)
    assert smtp_server.dialogues == []
    assert readers == []
    daily_run.ledger.execute("UPDATE lifecycle.throttle_connections SET leased_until = now()")
    assert send(daily_run, connections=2).sent == 2
    assert daily_run.ledger.execute("SELECT count(*) FROM lifecycle.throttle_connections").fetchone() == (0,)


def test_lease_of_connections_that_ended_begins_no_more_mail(daily_run: DailyRun, smtp_server) -> None:
    """As after a long freeze: the process wakes up with grants, and others hold its connections."""
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 41))
    daily_run.throttle = Throttle(mails_per_second=1, connections=1)
    limited = daily_run.plan()
    results: list[Sent] = []
    thread = threading.Thread(target=lambda: results.extend(daily_run.send(limited)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lifecycle_emails.delivery.pacing.RENEW_SECONDS", 0.5)
        thread.start()
        smtp_server.wait_until("dot")
        daily_run.ledger.execute("UPDATE lifecycle.throttle_connections SET leased_until = now()")
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert results[0].stopped_by == "throttled"
    assert 1 <= results[0].sent <= 3
    assert set(daily_run.states().values()) == {"sent", "ready"}


def test_probe_that_the_throttle_gives_no_turn_says_nothing_about_the_provider(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.add_users(1)
    daily_run.throttle = Throttle(mails_per_day=1)
    state_throttle(daily_run.ledger, SMTP, daily_run.throttle)
    take_grants(daily_run.ledger, SMTP, 1)
    daily_run.plan()
    stop_provider(daily_run.ledger, SMTP, "refused all")
    assert probe_provider(daily_run.tools) is None
    assert daily_run.ledger.execute("SELECT probed_at FROM lifecycle.provider_stops").fetchone() == (None,)
    assert smtp_server.accepted == []


def test_group_that_cannot_begin_leases_no_connections(daily_run: DailyRun, smtp_server) -> None:
    """Its gate finds the ledger gone: a lease held on by a thread that nobody ends would keep others out."""
    daily_run.add_users(1)
    daily_run.throttle = Throttle(connections=2)
    limited = daily_run.plan()
    open_sessions = count(1)

    def connect() -> psycopg.Connection[Any]:
        if next(open_sessions) > 2:  # after the one that leases batches, and the first of the sender's own
            raise psycopg.OperationalError("the ledger went away")
        return psycopg.connect(daily_run.ledger_url)

    tools = replace(daily_run.tools, connect_ledger=connect)
    with pytest.raises(LedgerError, match="the ledger went away"):
        send_group(tools, limited.groups[0], stop=daily_run.stop)
    assert daily_run.ledger.execute("SELECT count(*) FROM lifecycle.throttle_connections").fetchone() == (0,)


def test_connection_is_left_after_its_number_of_mails(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 8))
    assert send(daily_run, mails_per_connection=3).sent == 7
    by_connection = Counter(accepted.connection for accepted in smtp_server.accepted)
    assert sorted(by_connection.values()) == [1, 3, 3]


def test_connection_is_left_at_its_age(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 6))
    assert send(daily_run, mails_per_second=2, connection_age="1 second").sent == 5
    by_connection = Counter(accepted.connection for accepted in smtp_server.accepted)
    assert len(by_connection) >= 2
    assert max(by_connection.values()) <= 3


@pytest.mark.parametrize("phase", ["connect", "mail", "rcpt", "dot"])
def test_provider_that_says_too_fast_slows_the_sender_down_and_is_not_stopped(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, phase: str
) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 41))
    smtp_server.on(phase, Reply(421, "4.7.28 too fast"), Eof(), times=25)
    sent = send(daily_run, mails_per_second=200)
    assert (sent.sent, sent.refused_for_now, sent.due_now, sent.stopped_by) == (15, 25, 0, None)
    assert stopped_providers(daily_run.ledger) == []
    now = throttle_now(daily_run.ledger, SMTP)
    assert 100 <= now.effective_rate < 120
    assert now.slowed_because == f"{phase}: 421 4.7.28 too fast"
    let_time_pass(daily_run.ledger, timedelta(minutes=10))
    assert send(daily_run, mails_per_second=200).sent == 25
    assert max(smtp_server.copies().values()) == 1


@pytest.mark.parametrize(
    ("phase", "code", "text"),
    [
        ("dot", 454, "Throttling failure: Maximum sending rate exceeded."),
        ("rcpt", 451, "4.7.500 Server busy. Please try again later from [192.0.2.1]."),
    ],
)
def test_provider_that_says_too_fast_in_its_own_words_is_not_stopped(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, phase: str, code: int, text: str
) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 41))
    smtp_server.on(phase, Reply(code, text), times=25)
    sent = send(daily_run, mails_per_second=200)
    assert (sent.sent, sent.refused_for_now, sent.stopped_by) == (15, 25, None)
    assert stopped_providers(daily_run.ledger) == []
    assert throttle_now(daily_run.ledger, SMTP).slowed_because == f"{phase}: {code} {text}"
    assert len(smtp_server.dialogues) == 2


def test_provider_whose_day_is_used_up_is_stopped_and_probed(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 41))
    smtp_server.on("mail", Reply(454, "Throttling failure: Daily message quota exceeded."))
    sent = send(daily_run, mails_per_second=200)
    assert (sent.sent, sent.stopped_by) == (0, "provider_stopped")
    assert throttle_now(daily_run.ledger, SMTP).slowed_at is None


def test_provider_that_says_too_fast_ends_the_lane_where_there_is_no_rate(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, 2, 3)
    smtp_server.on("rcpt", Reply(421, "4.7.28 too fast"), Eof(), times=1)
    sent = send(daily_run, mails_per_day=100)
    assert (sent.sent, sent.refused_for_now) == (2, 1)


def test_grants_of_a_refused_gate_are_lost_and_a_halt_lets_go_of_whoever_waits(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=4)
    daily_run.add_users(*range(1, 11))
    daily_run.throttle = Throttle(mails_per_second=2)
    limited = daily_run.plan()
    halt(daily_run.ledger, reason="wrong template")
    [sent] = daily_run.send(limited)
    assert (sent.sent, sent.stopped_by) == (0, "halted")
    assert 1 <= throttle_now(daily_run.ledger, SMTP).granted_today <= 4
    resume(daily_run.ledger, reason="mended")


def test_stop_lets_go_of_lanes_that_wait_for_their_turn(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, 2, 3)
    daily_run.throttle = Throttle(mails_per_second=0.25)
    state_throttle(daily_run.ledger, SMTP, daily_run.throttle)
    take_grants(daily_run.ledger, SMTP, 1)
    limited = daily_run.plan()
    results: list[Sent] = []
    thread = threading.Thread(target=lambda: results.extend(daily_run.send(limited)))
    thread.start()
    while throttle_now(daily_run.ledger, SMTP).granted_today < 2:  # until a lane waits
        assert thread.is_alive()
    daily_run.stop.set()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert results[0].stopped_by == "stop"
    assert len(smtp_server.accepted) <= 1


def test_throttle_goes_on_after_the_ledger_was_restarted(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 41))
    daily_run.throttle = Throttle(mails_per_second=10, connections=2)
    limited = daily_run.plan()
    thread = threading.Thread(target=lambda: daily_run.send(limited), daemon=True)
    thread.start()
    smtp_server.wait_until("dot", times=5)
    daily_run.ledger.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert Counter(daily_run.states().values()) == {"sent": 40}
    assert excess(smtp_server, 10) <= 2
    assert max(smtp_server.copies().values()) == 1


def test_provider_that_cannot_be_reached_is_no_throttle(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, 2)
    smtp_server.on("connect", Reply(554, "5.3.2 no service"), Eof())
    with pytest.raises(DeliveryError, match=r"554 5\.3\.2 no service"):
        send(daily_run, mails_per_second=200)
    assert throttle_now(daily_run.ledger, SMTP).slowed_at is None
    assert set(daily_run.states().values()) == {"ready"}


def test_throttle_that_the_ledger_refuses_for_too_long_fails_the_task_and_mails_nobody(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.delivery.pacing.RECONNECT_FOR_SECONDS", 0)
    daily_run.add_users(1, 2)
    state_throttle(daily_run.ledger, SMTP, Throttle(mails_per_second=200))
    daily_run.ledger.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not now'; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE OF granted ON lifecycle.throttles FOR EACH ROW"
        " EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(LedgerError, match=r"the throttle could not go on \(RaiseException\)"):
        send(daily_run, mails_per_second=200)
    assert smtp_server.accepted == []
    assert set(daily_run.states().values()) == {"ready"}
