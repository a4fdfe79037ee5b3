"""Users whose creation day was corrected: they go with their day as long as nobody can have mailed them, and once only."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import uuid4

import pytest

from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.upkeep import sweep
from tests.daily_run import DailyRun, today
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.rows import let_time_pass, without_triggers
from tests.smtp_script import Reply, Reset


def cohort_of(run: DailyRun, user_id: int) -> date:
    row = run.ledger.execute(
        "SELECT cohort_date FROM lifecycle.sends WHERE user_id = %s", (str(user_id),)
    ).fetchone()
    assert row is not None
    return row[0]


def correct_creation_dates(run: DailyRun, days: int = 1) -> None:
    run.source.execute("UPDATE users SET created_at = created_at + make_interval(days => %s)", (days,))


@pytest.mark.parametrize(
    "answer", [Reply(451, "4.3.0 disk full"), Reset()], ids=["refused", "in doubt, settled"]
)
def test_corrected_creation_date_moves_who_was_attempted_in_vain_and_the_mail_goes_out(
    daily_run: DailyRun, smtp_server, answer: Reply | Reset
) -> None:
    yesterday = today() - timedelta(days=1)
    smtp_server.on("dot", answer, times=1)
    daily_run.add_users(1, day=yesterday)
    daily_run.send(daily_run.plan(yesterday))
    let_time_pass(daily_run.ledger, timedelta(hours=1))
    if isinstance(answer, Reset):
        settle(daily_run.ledger, "welcome", Which(), SettleAs.SEND_AGAIN, reason="never had it")
    correct_creation_dates(daily_run)
    daily_run.send(daily_run.plan(with_earlier=True))
    assert daily_run.states() == {"1": "sent"}
    assert cohort_of(daily_run, 1) == today()
    assert smtp_server.copies() == {("welcome", "1"): 1}
    assert reconcile(daily_run.ledger, daily_run.campaign, [yesterday, today()]).problems == ()


def test_corrected_creation_date_moves_who_was_not_gated_and_mails_nobody_twice(
    daily_run: DailyRun, smtp_server
) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(1, 2, day=yesterday)
    daily_run.plan(yesterday)
    daily_run.ledger.execute(
        "UPDATE lifecycle.sends SET state = 'held', held_reason = 'capped' WHERE user_id = '2'"
    )
    correct_creation_dates(daily_run)
    extracted = daily_run.extract()
    assert (extracted.moved, extracted.elsewhere) == (2, 0)
    assert daily_run.states() == {"1": "planned", "2": "planned"}
    assert cohort_of(daily_run, 1) == today()
    daily_run.send(daily_run.plan())
    correct_creation_dates(daily_run, -1)
    extracted = daily_run.extract(yesterday)
    assert (extracted.moved, extracted.elsewhere) == (0, 2)
    daily_run.send(daily_run.plan(yesterday))
    assert smtp_server.copies() == {("welcome", "1"): 1, ("welcome", "2"): 1}


@pytest.mark.parametrize("state", ["sending", "in_doubt", "sent", "rejected"])
def test_who_may_have_the_mail_stays_where_it_was_sent(daily_run: DailyRun, state: str) -> None:
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(1, day=yesterday)
    daily_run.plan(yesterday)
    with without_triggers(daily_run.ledger):
        daily_run.ledger.execute(
            "UPDATE lifecycle.sends SET state = %(state)s::lifecycle.send_state, gate_at = now(), answer_due = now(),"
            " attempt = gen_random_uuid(), sent_at = CASE WHEN %(state)s = 'sent' THEN now() END",
            {"state": state},
        )
    correct_creation_dates(daily_run)
    extracted = daily_run.extract(with_earlier=True)
    assert (extracted.moved, extracted.elsewhere) == (0, 1)
    assert (daily_run.states(), cohort_of(daily_run, 1)) == ({"1": state}, yesterday)


def test_old_batch_of_a_moved_user_mails_once_and_its_late_answer_counts(daily_run: DailyRun) -> None:
    """A worker that was given the user before the move asks after it, and hears very late that it was accepted."""
    yesterday = today() - timedelta(days=1)
    daily_run.add_users(1, day=yesterday)
    daily_run.plan(yesterday)
    terms = {"campaign_id": "welcome", "batches": ((yesterday, 0),), "dot_timeout": 1}
    first, second, third = uuid4(), uuid4(), uuid4()
    with open_gate(daily_run.ledger_url, **terms) as old, open_gate(daily_run.ledger_url, **terms) as other:
        assert old.ask("1", first, HASH) is Passage.PASSED
        old.record(Record("1", first, RecordedAs.RETRY, detail="dot: 451"))
        assert old.flush(timeout=5)
        correct_creation_dates(daily_run)
        daily_run.extract(with_earlier=True)
        assert old.ask("1", second, HASH) is Passage.LOST  # moved, and not judged yet
        daily_run.plan(with_earlier=True)
        assert old.ask("1", second, HASH) is Passage.PASSED
        assert other.ask("1", third, HASH) is Passage.LOST
        other.record(Record("1", first, RecordedAs.RETRY, detail="an answer to the attempt before the move"))
        assert other.flush(timeout=5)
        assert daily_run.states() == {"1": "sending"}
        let_time_pass(daily_run.ledger, timedelta(hours=1))
        assert sweep(daily_run.ledger, "welcome", [today()])
        correct_creation_dates(daily_run, -1)
        assert daily_run.extract(with_earlier=True).moved == 0
        assert daily_run.states() == {"1": "in_doubt"}
        old.record(Record("1", second, RecordedAs.SENT, queue_id="4QaBcD"))
        assert old.flush(timeout=5)
    assert (daily_run.states(), cohort_of(daily_run, 1)) == ({"1": "sent"}, today())
