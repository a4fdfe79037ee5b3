"""``lifecycle why``: what the ledger tells about a user, after real runs against a real server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from lifecycle_emails.cli import main
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import filter_ledger
from lifecycle_emails.ledger.orders import halt, suppress
from lifecycle_emails.ledger.steps import record_step
from lifecycle_emails.ledger.throttle import slow_down
from lifecycle_emails.throttle import Throttle
from tests.daily_run import DailyRun, today
from tests.integration.ledger.rows import add_cohort, add_sends, let_time_pass, make_doubts
from tests.smtp_script import Reply

ONE_A_WEEK = (CapRule("one_per_week", 1, timedelta(days=7)),)


class Why:
    """The command, on the ledger of a daily run."""

    def __init__(self, run: DailyRun, capsys: pytest.CaptureFixture[str]) -> None:
        self.run = run
        self.capsys = capsys

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["--ledger", self.run.ledger_url, "why", *arguments])
        said = self.capsys.readouterr()
        return status, said.out.strip(), said.err.strip()

    def __call__(self, user: str) -> str:
        status, said, _ = self.ask(user)
        assert status == 0
        return said

    def data(self, user: str) -> Any:
        [found] = json.loads(self.ask(user, "--json")[1])
        return found


@pytest.fixture
def why(daily_run: DailyRun, capsys: pytest.CaptureFixture[str]) -> Why:
    return Why(daily_run, capsys)


def test_sent_mail_is_told_with_runs_versions_and_what_the_server_said(why: Why) -> None:
    run = why.run
    run.add_users(42)
    record_step(run.ledger, "welcome", [today()], "extract_cohort", "welcome monday")
    run.extract()
    record_step(run.ledger, "welcome", [today()], "limit_rate", "welcome monday")
    limited = run.plan()
    record_step(run.ledger, "welcome", [today()], "send_batch", "welcome tuesday")
    run.send(limited)
    record_step(run.ledger, "welcome", [today()], "send_batch", "welcome wednesday")

    said = why("42")
    [send] = why.data("42")["sends"]

    assert said.startswith(f"welcome, cohort {today()}: user 42 got this mail: the server accepted it at 20")
    assert (send["planned_by"], send["ready_by"], send["sent_by"]) == (
        "welcome monday",
        "welcome monday",
        "welcome tuesday",
    )
    assert send["template_version"] == run.tools.templates.version
    assert send["code_version"] in said
    assert send["message_key"] in said
    [(queue_id,)] = run.ledger.execute("SELECT queue_id FROM lifecycle.sends").fetchall()
    assert f"server: queue id {queue_id}" in said


def test_capped_user_is_told_the_rule_and_the_mail_that_fills_it(why: Why) -> None:
    run = why.run
    run.add_users(42)
    add_cohort(run.ledger, "other")
    add_sends(run.ledger, ["42"], "other", state="sent")
    run.plan(rules=ONE_A_WEEK)

    said = why("42")

    assert f"welcome, cohort {today()}: user 42 got nothing: held as capped" in said
    assert "judged again by each scheduled run until then" in said
    assert "rule one_per_week: 1 slots were taken" in said
    assert "slot     taken by other (sent)" in said


def test_suppressed_user_is_told_who_wanted_it(why: Why) -> None:
    run = why.run
    run.add_users(42, 43)
    suppress(run.ledger, user_id="42", reason="asked by phone", actor="grace")
    suppress(run.ledger, address="user43@example.com", reason="bounced twice", actor="grace")
    run.plan()

    assert "held as suppressed" in why("42")
    assert "user, all campaigns, since" in why("42")
    assert "by grace: asked by phone" in why("42")
    assert "address, all campaigns, since" in why("43")


def test_user_is_found_by_address_and_the_address_is_not_repeated(why: Why) -> None:
    somebody_else = 4_300_000_043  # no part of a time
    why.run.add_users(42, somebody_else)
    why.run.plan()
    status, said, _ = why.ask("--address", "User42@Example.com")
    assert status == 0
    assert "user 42 has not got it yet: ready" in said
    assert str(somebody_else) not in said
    assert "@example.com" not in said.lower()
    status, _, refused = why.ask("--address", "nobody@example.com")
    assert (status, "knows nobody by this address" in refused) == (1, True)


def test_suppressed_address_of_nobody_is_told_as_the_proof_of_it(why: Why) -> None:
    suppress(why.run.ledger, address="eve@example.com", reason="asked to be erased", actor="grace")
    status, said, _ = why.ask("--address", "Eve@example.com")
    assert status == 0
    assert said.startswith("The ledger knows nobody by this address")
    assert "address, all campaigns, since 20" in said
    assert said.endswith("by grace: asked to be erased")
    assert "example.com" not in said
    [found] = json.loads(why.ask("--address", "eve@example.com", "--json")[1])
    assert (found["user_id"], found["sends"], len(found["suppressions"])) == (None, [], 1)


def test_refused_mail_is_told_with_the_reply_and_a_deferred_one_with_its_time(why: Why, smtp_server) -> None:
    run = why.run
    smtp_server.on("rcpt", Reply(450, "4.2.1 <user42@example.com> try later"), times=1)
    run.add_users(42)
    run.send(run.plan())

    said = why("42")

    assert "the mail server refused for now (" in said
    assert "4.2.1" in said
    assert "tried again from" in said
    assert "@example" not in said


def test_halt_doubt_and_passed_deadline_are_told_with_what_to_do(why: Why) -> None:
    run = why.run
    run.add_users(42)
    run.plan()
    halt(run.ledger, campaign_id="welcome", reason="wrong template", actor="grace")
    assert "ready, but there is a halt since" in why("42")
    assert "by grace (wrong template); afterwards it goes out" in why("42")
    add_cohort(run.ledger)
    make_doubts(run.ledger, ["7"])
    assert "lifecycle settle day4_follow_up --user 7" in why("7")
    assert "sending -> in_doubt" in why("7")
    let_time_pass(run.ledger, timedelta(days=5))
    filter_ledger(run.ledger, run.campaign, [today()])
    assert "held as stale" in why("42")
    assert "lifecycle extend" in why("42")


def test_user_whose_connection_has_used_up_its_day_is_told_until_when_it_waits(why: Why) -> None:
    run = why.run
    run.add_users(41, 42)
    run.throttle = Throttle(mails_per_day=1, timezone="Asia/Kathmandu")
    run.send(run.plan())
    kathmandu = ZoneInfo("Asia/Kathmandu")
    day = datetime.now(kathmandu).date()
    tomorrow = datetime.combine(day + timedelta(days=1), time.min, kathmandu).astimezone(UTC)

    told = why("42").splitlines()

    assert told[0].endswith(
        "ready, holds its slot of the frequency cap, and waits for send_batch of its run or of the next; the daily "
        f"maximum of lifecycle_smtp's throttle is reached, so nothing goes over it before {tomorrow.isoformat(sep=' ')}."
    )
    words = f"Throttle of lifecycle_smtp: 1 of 1 mails of {day} (Asia/Kathmandu)"
    assert any(line.strip().startswith(words) for line in told)
    assert why.data("42")["throttles"]["lifecycle_smtp"]["granted_today"] == 1
    assert "Throttle" not in why("41")  # who has got the mail


def test_user_who_waits_for_a_turn_is_told_when_the_next_one_is_and_what_slowed_it_down(why: Why) -> None:
    run = why.run
    run.add_users(41, 42)
    run.throttle = Throttle(mails_per_second=0.1)
    run.send(run.plan())
    slow_down(run.ledger, "lifecycle_smtp", "rcpt: 421 4.7.28 too fast")
    (last_at,) = run.ledger.execute("SELECT last_grant_at FROM lifecycle.throttles").fetchone()

    told = why("42")

    sentence, _, at = told.splitlines()[0].partition("lifecycle_smtp's throttle gives its next turn at ")
    assert "waits for send_batch of its run or of the next" in sentence
    assert datetime.fromisoformat(at.rstrip(".")) - last_at == pytest.approx(
        timedelta(seconds=20), abs=timedelta(seconds=2)
    )
    assert "slowed to 0.05 since the provider said 'rcpt: 421 4.7.28 too fast'" in told


def test_run_with_a_shorter_deadline_of_its_own_is_told_apart_from_the_cohorts(why: Why) -> None:
    run = why.run
    run.add_users(42)
    run.plan()
    let_time_pass(run.ledger, timedelta(days=1))
    run.ledger.execute(
        "UPDATE lifecycle.sends SET state = 'held', held_reason = 'stale', detail = 'more than 1 days late, as this run asked'"
    )
    told = why("42").splitlines()[0]
    assert (
        "the cohort's deadline, or the run's own, had passed (more than 1 days late, as this run asked)"
        in told
    )
    assert "The cohort's own deadline is later: the next scheduled run judges the user again." in told


def test_unknown_user_is_one_clear_message_and_nothing_is_written(why: Why) -> None:
    status, said, refused = why.ask("99")
    assert (status, said) == (1, "")
    assert refused.startswith("lifecycle: the ledger knows no user 99: no run has found this id")
    status, said, refused = why.ask("ada@example.com")
    assert (status, said, "example.com" in refused) == (1, "", False)
    assert "--address" in refused
    with pytest.raises(SystemExit):
        why.ask(" ")
    assert why.ask()[0] == 1
    assert why.ask("1", "--address", "a@example.com")[0] == 1


def test_ledger_that_went_back_in_time_is_told_as_what_stops_sending(why: Why) -> None:
    why.run.add_users(42)
    why.run.plan()
    why.run.ledger.execute("INSERT INTO lifecycle.restores (finding) VALUES ('another server')")
    assert "the ledger may have gone back in time: another server" in why("42").splitlines()[0]
