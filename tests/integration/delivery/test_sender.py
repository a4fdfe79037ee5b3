"""One group of batches sent for real: Postgres, the gate, SMTP on loopback. The server's list is the judge."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from bench.long_link import DelayingProxy
from lifecycle_emails.code_version import code_version
from lifecycle_emails.delivery.probe import probe_provider
from lifecycle_emails.delivery.sender import send_group
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.errors import ConfigurationError, DeliveryError
from lifecycle_emails.ledger.orders import halt, resume, suppress
from lifecycle_emails.ledger.provider import stop_provider, stopped_providers
from lifecycle_emails.ledger.upkeep import sweep
from tests.daily_run import DailyRun, today
from tests.integration.ledger.rows import let_time_pass
from tests.scripted_smtp_server import Accept, BlackHole, Eof, Queued, Reply, Reset, ScriptedSmtpServer, Until

ROOT = Path(__file__).parents[3]


def once_each(server: ScriptedSmtpServer, *user_ids: int) -> bool:
    return server.copies() == Counter({("welcome", str(user_id)): 1 for user_id in user_ids})


def test_batch_is_sent_once_and_a_second_run_sends_nothing(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(*range(1, 31))
    [sent] = daily_run.send(daily_run.plan())
    assert (sent.sent, sent.due_now, sent.stopped_by) == (30, 0, None)
    assert once_each(smtp_server, *range(1, 31))
    again = daily_run.plan()
    assert (again.ready, again.groups) == (0, ())
    row = daily_run.ledger.execute(
        "SELECT queue_id, template_version, code_version FROM lifecycle.sends WHERE user_id = '1'"
    ).fetchone()
    assert row is not None
    assert row[0].startswith("4Q")
    assert row[2] == code_version()
    assert row[1] == daily_run.tools.templates.version


def test_same_group_sent_by_four_at_once_reaches_everybody_once(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(*range(1, 101))
    limited = daily_run.plan()
    daily_run.ledger.execute("UPDATE lifecycle.batches SET lease_until = NULL")
    threads = [threading.Thread(target=daily_run.send, args=(limited,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    daily_run.send(daily_run.plan())
    assert once_each(smtp_server, *range(1, 101))


def test_users_who_cannot_be_mailed_are_held_one_by_one(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write("templates/welcome/subject.txt.j2", "Hello {{ 12 // (user_id - 3) }}")
    daily_run.add_users(1, 2, 3, 4)
    daily_run.add_users(5, full_name="{{ 7 * 7 }}<script>")
    limited = daily_run.plan()
    daily_run.source.execute("UPDATE users SET email = 'not an address' WHERE user_id = 2")
    daily_run.source.execute("DELETE FROM users WHERE user_id = 4")
    [sent] = daily_run.send(limited)
    assert daily_run.states() == {
        "1": "sent", "2": "held/invalid_address", "3": "held/render_failed", "4": "held/left_audience", "5": "sent",
    }  # fmt: skip
    assert (sent.sent, sent.held, sent.due_now) == (2, 3, 0)
    assert once_each(smtp_server, 1, 5)
    assert (
        b"{{ 7 * 7 }}" in smtp_server.accepted[-1].content
        or b"{{ 7 * 7 }}" in smtp_server.accepted[0].content
    )


def test_mended_template_sends_who_was_held_and_nobody_twice(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write("templates/welcome/subject.txt.j2", "Hello {{ 12 // (user_id - user_id) }}")
    daily_run.add_users(1, 2)
    daily_run.send(daily_run.plan())
    assert set(daily_run.states().values()) == {"held/render_failed"}
    daily_run.include.write("templates/welcome/subject.txt.j2", "Hello {{ full_name }}")
    daily_run.send(daily_run.plan())
    assert once_each(smtp_server, 1, 2)


def test_time_that_python_cannot_hold_costs_only_its_user_the_mail(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write(
        "audiences/users.sql",
        "SELECT user_id, email, full_name, CASE WHEN user_id = 2 THEN 'infinity' ELSE created_at END AS since\n"
        "FROM users WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s",
    )
    daily_run.include.write("templates/welcome/subject.txt.j2", "Hello, since {{ since.year }}")
    daily_run.add_users(1, 2, 3)
    daily_run.send(daily_run.plan())
    assert daily_run.states() == {"1": "sent", "2": "held/render_failed", "3": "sent"}


def test_unsubscribe_between_planning_and_gate_is_obeyed(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, 2)
    limited = daily_run.plan()
    suppress(daily_run.ledger, address="user1@example.com", reason="unsubscribed")
    daily_run.send(limited)
    assert daily_run.states() == {"1": "held/suppressed", "2": "sent"}
    assert once_each(smtp_server, 2)


def test_halt_in_the_middle_leaves_the_rest_ready_and_resuming_sends_it(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 11))
    limited = daily_run.plan()
    halted = threading.Event()
    smtp_server.on("dot", Accept(), Until(halted), Queued(), times=1)
    thread = threading.Thread(target=daily_run.send, args=(limited,))
    thread.start()
    smtp_server.wait_until("dot")
    halt(daily_run.ledger, reason="wrong template")
    halted.set()
    thread.join()
    assert Counter(daily_run.states().values()) == {"sent": 1, "ready": 9}
    resume(daily_run.ledger, reason="mended")
    daily_run.send(daily_run.plan())
    assert once_each(smtp_server, *range(1, 11))


@pytest.mark.parametrize("steps", [(Accept(), Reset()), (Reset(),), (Accept(), Eof()), (Eof(),)])
def test_no_answer_to_the_dot_is_in_doubt_and_never_sent_again(
    daily_run: DailyRun, smtp_server, steps
) -> None:
    daily_run.add_users(1, 2, 3)
    smtp_server.on("dot", *steps, times=1)
    daily_run.send(daily_run.plan())
    daily_run.send(daily_run.plan())
    assert Counter(daily_run.states().values()) == {"sent": 2, "in_doubt": 1}
    assert max(smtp_server.copies().values()) == 1


def test_passage_that_comes_too_late_is_given_back_without_a_dot(
    daily_run: DailyRun, smtp_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily_run.add_users(1)
    [group] = daily_run.plan().groups
    with monkeypatch.context() as late:
        late.setattr("lifecycle_emails.delivery.lane.DOT_WITHIN_SECONDS", -1.0)
        send_group(daily_run.tools, group, stop=threading.Event(), at_most=1)
    assert daily_run.states() == {"1": "ready"}
    assert smtp_server.copies() == Counter()
    send_group(daily_run.tools, group, stop=threading.Event())
    assert once_each(smtp_server, 1)


def test_refused_for_now_is_tried_again_later_and_a_refused_recipient_is_not(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=1)
    smtp_server.on("rcpt", Reply(450, "4.2.0 greylisted"), times=1, when=lambda line: "user1@" in line)
    smtp_server.on(
        "rcpt", Reply(550, "5.1.1 no such user user2@example.com"), when=lambda line: "user2@" in line
    )
    smtp_server.on("dot", Reply(451, "4.3.0 disk"), times=1)
    daily_run.add_users(1, 2, 3, 4)
    [sent] = daily_run.send(daily_run.plan())
    assert (sent.rejected, sent.refused_for_now, sent.due_now, sent.due_later) == (1, 2, 0, 2)
    assert daily_run.states() == {"1": "ready", "2": "rejected", "3": "ready", "4": "sent"}
    assert sent.next_due is not None
    let_time_pass(daily_run.ledger, timedelta(minutes=6))
    daily_run.send(daily_run.plan())
    assert once_each(smtp_server, 1, 3, 4)
    details = daily_run.ledger.execute("SELECT detail FROM lifecycle.sends WHERE user_id = '2'").fetchone()
    assert details == ("rcpt: 550 5.1.1 no such user <address>",)


def test_provider_that_refuses_everything_is_stopped_and_nobody_is_rejected(
    daily_run: DailyRun, smtp_server
) -> None:
    smtp_server.on("rcpt", Reply(550, "no"))
    daily_run.add_users(*range(1, 101))
    [sent] = daily_run.send(daily_run.plan())
    assert sent.stopped_by == "provider_stopped"
    assert set(daily_run.states().values()) == {"ready"}
    assert [stop.smtp_conn_id for stop in stopped_providers(daily_run.ledger)] == ["lifecycle_smtp"]
    alerts = daily_run.ledger.execute("SELECT kind FROM lifecycle.alerts").fetchall()
    assert alerts == [("provider_stopped",)]


def test_a_few_bare_550_among_accepted_mails_are_rejections(daily_run: DailyRun, smtp_server) -> None:
    smtp_server.on("rcpt", Reply(550, "no"), when=lambda line: "user7@" in line or "user30@" in line)
    daily_run.add_users(*range(1, 31))
    daily_run.send(daily_run.plan())
    assert Counter(daily_run.states().values()) == {"sent": 28, "rejected": 2}


def test_unreachable_server_is_one_clear_error_and_leaves_everybody_ready(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.add_users(1, 2)
    limited = daily_run.plan()
    smtp_server.stop()
    with pytest.raises(DeliveryError, match=f"127.0.0.1:{smtp_server.port} cannot be used"):
        daily_run.send(limited)
    assert daily_run.states() == {"1": "ready", "2": "ready"}


def test_stop_gates_nobody_more_and_records_the_answers_under_way(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=2)
    daily_run.add_users(*range(1, 21))
    limited = daily_run.plan()
    answer = threading.Event()
    smtp_server.on("dot", Accept(), Until(answer), Queued(), times=2)
    results = []
    thread = threading.Thread(target=lambda: results.extend(daily_run.send(limited)))
    thread.start()
    smtp_server.wait_until("dot", times=2)
    daily_run.stop.set()
    answer.set()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert results[0].stopped_by == "stop"
    assert Counter(daily_run.states().values()) == {"sent": 2, "ready": 18}
    assert len(smtp_server.accepted) == 2


def test_killed_sender_leaves_at_most_its_connections_in_doubt_and_a_rerun_sends_the_rest(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=4)
    daily_run.add_users(*range(1, 201))
    daily_run.plan()
    smtp_server.on("dot", Accept(), Queued(), times=50)
    smtp_server.on("dot", Accept(), BlackHole(), times=4)
    command = [sys.executable, "-m", "tests.integration.delivery.sender_process", str(daily_run.include.path),
               daily_run.ledger_url, daily_run.source_url, str(smtp_server.port)]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}", "PATH": "/usr/bin:/bin"}
    )
    smtp_server.wait_until("dot", times=54, seconds=60)
    process.kill()
    process.wait()
    let_time_pass(daily_run.ledger, timedelta(minutes=2))
    in_doubt = sweep(daily_run.ledger, "welcome", [today()])
    assert 1 <= in_doubt <= 4
    for sent in daily_run.send(daily_run.plan()):
        assert sent.due_now == 0
    assert Counter(daily_run.states().values()) == {"sent": 200 - in_doubt, "in_doubt": in_doubt}
    assert max(smtp_server.copies().values()) == 1
    assert len(smtp_server.accepted) == 200


def test_ledger_restarted_in_the_middle_loses_nothing(daily_run: DailyRun, smtp_server) -> None:
    daily_run.include.write_campaign(connections=4)
    daily_run.add_users(*range(1, 101))
    limited = daily_run.plan()
    cut = threading.Event()
    smtp_server.on("dot", Accept(), Queued(), times=20)
    smtp_server.on("dot", Accept(), Until(cut), Queued(), times=1)
    thread = threading.Thread(target=lambda: daily_run.send(limited))
    thread.start()
    smtp_server.wait_until("dot", times=21)
    with psycopg.connect(daily_run.ledger_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    cut.set()
    thread.join()
    daily_run.ledger.close()
    daily_run.ledger = psycopg.connect(daily_run.ledger_url, autocommit=True)
    daily_run.send(daily_run.plan())
    assert Counter(daily_run.states().values()) == {"sent": 100}
    assert once_each(smtp_server, *range(1, 101))


def test_probe_tries_a_stopped_provider_with_one_mail_and_resumes_once_it_is_accepted(
    daily_run: DailyRun, smtp_server
) -> None:
    smtp_server.on("rcpt", Reply(554, "5.7.1 policy"), times=21)
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(*range(1, 31))
    daily_run.send(daily_run.plan())
    assert len(stopped_providers(daily_run.ledger)) == 1
    assert probe_provider(daily_run.tools) is False
    assert probe_provider(daily_run.tools) is True
    assert stopped_providers(daily_run.ledger) == []
    assert Counter(daily_run.states().values()) == {"sent": 1, "ready": 29}
    let_time_pass(daily_run.ledger, timedelta(minutes=10))
    daily_run.send(daily_run.plan())
    assert once_each(smtp_server, *range(1, 31))


def test_probe_without_anybody_to_mail_tries_nothing(daily_run: DailyRun, smtp_server) -> None:
    assert probe_provider(daily_run.tools) is None
    assert smtp_server.dialogues == []


def test_variable_that_the_audience_does_not_return_is_one_clear_error_and_holds_nobody(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write("templates/welcome/subject.txt.j2", "Hello {{ nickname }}")
    daily_run.add_users(1, 2)
    limited = daily_run.plan()
    with pytest.raises(ConfigurationError, match="the audience does not return `nickname`"):
        daily_run.send(limited)
    assert daily_run.states() == {"1": "ready", "2": "ready"}
    assert smtp_server.accepted == []


@pytest.mark.parametrize("text", ["denied", "5.1.1 no such user"])
def test_refusal_of_everybody_rejects_nobody_however_small_the_batches(
    daily_run: DailyRun, smtp_server, text: str
) -> None:
    smtp_server.on("rcpt", Reply(550, text))
    daily_run.include.write_campaign(batch_size=10)
    daily_run.add_users(*range(1, 41))
    daily_run.send(daily_run.plan())
    assert set(daily_run.states().values()) == {"ready"}


def test_recipient_who_does_not_exist_is_rejected_once_another_mail_of_the_task_was_accepted(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=1)
    smtp_server.on("rcpt", Reply(550, "5.1.1 no such user"), when=lambda line: "user2@" in line)
    daily_run.add_users(1, 2)
    daily_run.send(daily_run.plan())
    assert daily_run.states() == {"1": "sent", "2": "rejected"}


@pytest.mark.parametrize("reply", [Reply(550, "no"), Reply(550, "5.1.1 no such user")])
def test_probe_rejects_nobody(daily_run: DailyRun, smtp_server, reply: Reply) -> None:
    smtp_server.on("rcpt", reply)
    daily_run.add_users(*range(1, 41))
    daily_run.send(daily_run.plan())
    assert len(stopped_providers(daily_run.ledger)) == 1
    let_time_pass(daily_run.ledger, timedelta(minutes=10))
    assert [probe_provider(daily_run.tools) for _ in range(3)] == [False] * 3
    assert set(daily_run.states().values()) == {"ready"}


def test_recipient_refused_after_the_dot_is_rejected_once_others_are_accepted(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=1)
    smtp_server.on("dot", Reply(550, "5.1.1 no such user"), times=1)
    daily_run.add_users(1, 2)
    daily_run.send(daily_run.plan())
    assert daily_run.states() == {"1": "rejected", "2": "sent"}


def test_long_link_is_filled_by_more_connections(daily_run: DailyRun, smtp_server) -> None:
    """50 ms of round trip: what one connection cannot do in a second, sixteen do; ratios, not times."""
    rates: list[float] = []
    with DelayingProxy(smtp_server.port, 0.025) as link:
        for connections, users in ((2, range(1, 21)), (16, range(101, 261))):
            daily_run.include.write_campaign(connections=connections)
            daily_run.smtp = SmtpSettings("127.0.0.1", link.port, security="none", dot_timeout=30)
            daily_run.add_users(*users)
            [sent] = daily_run.send(daily_run.plan())
            assert sent.sent == len(users)
            rates.append(sent.sent / sent.seconds)
    assert rates[1] > 2.5 * rates[0], rates


def test_probe_of_a_provider_that_cannot_be_reached_leaves_it_stopped(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.add_users(1)
    daily_run.plan()
    stop_provider(daily_run.ledger, daily_run.campaign.smtp_conn_id, "20 mails in a row were refused")
    smtp_server.stop()
    assert probe_provider(daily_run.tools) is False
    assert [stop.probed_at is not None for stop in stopped_providers(daily_run.ledger)] == [True]
    assert daily_run.states() == {"1": "ready"}


def test_address_that_the_server_cannot_be_told_is_held_and_the_next_mail_goes_out(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer
) -> None:
    daily_run.include.write_campaign(connections=1)
    daily_run.add_users(1, email="jörg@example.com")  # the server offers no SMTPUTF8
    daily_run.add_users(2)
    daily_run.send(daily_run.plan())
    assert daily_run.states() == {"1": "held/invalid_address", "2": "sent"}
