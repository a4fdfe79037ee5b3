"""A test of a campaign: one mail to whoever tests it, told in the audit, and nothing of it in the ledger's sends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes

import pytest

from lifecycle_emails.address import address_hash, parse_recipient
from lifecycle_emails.delivery.test_mail import send_test
from lifecycle_emails.errors import DeliveryError, LedgerError, LifecycleError, SourceError
from lifecycle_emails.ledger.actions import Actor, Done, list_actions
from lifecycle_emails.ledger.orders import halt, suppress
from lifecycle_emails.order import Action, Order
from tests.daily_run import DailyRun, today
from tests.scripted_smtp_server import Eof, Reply, ScriptedSmtpServer

ADA = Actor("ada", "airflow", "lifecycle_operations manual__1")
TESTER = "tester@example.com"
ORDER = Order(Action.SEND_TEST, "new text", "welcome", user_ids=("7",), recipient="my_mailbox")


def send(run: DailyRun, order: Order = ORDER, actor: Actor = ADA, to: str = TESTER) -> Done:
    return send_test(run.tools, order, to, actor, ["welcome"], now=datetime.now(UTC))


def results(run: DailyRun) -> list[str | None]:
    return [done.result for done in list_actions(run.ledger)]


def test_test_shows_the_users_mail_to_the_tester_only(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7, full_name="Ann Lee", day=today() - timedelta(days=400))
    done = send(daily_run)
    [mail] = smtp_server.accepted
    assert (mail.recipients, mail.reference) == ((TESTER,), ("welcome", "7"))
    assert message_from_bytes(mail.content)["Subject"] == "[test] Hello Ann Lee"
    assert done.result.startswith("the mail server accepted the test; it said: 250")
    [kept] = list_actions(daily_run.ledger)
    assert (kept.actor, kept.action, kept.result) == ("ada", "send_test", done.result)
    assert kept.arguments == {"campaign": "welcome", "user_ids": ["7"], "recipient": "my_mailbox"}
    assert daily_run.states() == {}


def test_address_is_kept_as_its_hash_only(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    send(
        daily_run, replace(ORDER, recipient=None, address=TESTER), Actor("postgres (command, bob)", "command")
    )
    [kept] = list_actions(daily_run.ledger)
    [(key,)] = daily_run.ledger.execute("SELECT address_hash_key FROM lifecycle.installation").fetchall()
    assert kept.arguments["address_hash"] == address_hash(key, parse_recipient(TESTER)).hex()
    assert "@" not in str(kept.arguments)


def test_test_without_a_user_shows_one_of_the_newest_cohort(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(1, 2, day=today() - timedelta(days=2))
    daily_run.add_users(3, day=today() - timedelta(days=3))
    send(daily_run, replace(ORDER, user_ids=()))
    assert [mail.reference for mail in smtp_server.accepted] == [("welcome", "1")]


def test_repeated_run_sends_no_second_test(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    first = send(daily_run)
    assert send(daily_run) == replace(first, before=True)
    assert len(smtp_server.accepted) == 1


def test_test_goes_out_under_a_halt_and_counts_for_nobody(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    suppress(daily_run.ledger, user_id="7", reason="asked")
    halt(daily_run.ledger, reason="wrong template")
    send(daily_run)
    assert len(smtp_server.accepted) == 1
    assert daily_run.ledger.execute("SELECT count(*) FROM lifecycle.cap_slots").fetchone() == (0,)


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
def test_refusal_before_the_dot_leaves_nothing_and_may_be_tried_again(
    daily_run: DailyRun, smtp_server: ScriptedSmtpServer, phase: str
) -> None:
    daily_run.add_users(7)
    smtp_server.on(phase, Reply(451, "4.3.0 later"), times=1)
    with pytest.raises(DeliveryError, match=r"did not accept the test; it said: 451 .*Nothing was changed"):
        send(daily_run)
    assert results(daily_run) == []
    assert send(daily_run).before is False
    assert len(smtp_server.accepted) == 1


def test_refusal_at_the_dot_is_told_and_not_repeated(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    smtp_server.on("dot", Reply(554, "5.7.1 no"), times=1)
    with pytest.raises(DeliveryError, match="did not accept the test; it said: 554"):
        send(daily_run)
    assert send(daily_run).before
    assert [result[:41] for result in results(daily_run)] == [
        "the mail server did not accept the test; "[:41]
    ]
    assert smtp_server.accepted == []


def test_lost_answer_to_the_dot_is_told_as_such(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    smtp_server.on("dot", Eof(), times=1)
    with pytest.raises(DeliveryError, match="may have accepted the test or not"):
        send(daily_run)
    assert send(daily_run).before


@pytest.mark.parametrize(
    ("order", "to", "said"),
    [
        (replace(ORDER, user_ids=("8",)), TESTER, "returns no user 8, whenever created"),
        (replace(ORDER, campaign="welcom"), TESTER, "there is no campaign welcom"),
        (ORDER, "nobody at all", "address"),
    ],
)
def test_test_that_cannot_be_made_leaves_nothing(
    daily_run: DailyRun, smtp_server, order: Order, to: str, said: str
) -> None:
    daily_run.add_users(7)
    with pytest.raises(LifecycleError, match=said):
        send(daily_run, order, to=to)
    assert (results(daily_run), smtp_server.accepted) == ([], [])


def test_campaign_without_users_asks_for_one(daily_run: DailyRun, smtp_server) -> None:
    with pytest.raises(SourceError, match="Name a user"):
        send(daily_run, replace(ORDER, user_ids=()))


def test_run_that_ordered_something_else_sends_nothing(daily_run: DailyRun, smtp_server) -> None:
    daily_run.add_users(7)
    send(daily_run)
    with pytest.raises(LedgerError, match="has done another action before"):
        send(daily_run, replace(ORDER, reason="another text"))
    assert len(smtp_server.accepted) == 1
