"""A person's orders: done and written down together, once for each run, never past suppression or cap."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.actions import Done, begin_action, end_action, list_actions
from lifecycle_emails.ledger.approving import (
    count_awaiting_approval,
    record_answer,
)
from lifecycle_emails.order import Action, Order
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.going_back import let_go
from tests.integration.ledger.orders_given import ADA, CAMPAIGN, audit, cohort_held_back, give, ordered
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_doubts,
    states,
)


@pytest.fixture
def ledger(ledger_database: str):
    with connect(ledger_database) as connection:
        add_cohort(connection)
        yield connection


def test_action_is_kept_with_who_what_why_and_the_database_role(ledger) -> None:
    give(ledger, Order(Action.SUPPRESS, " asked by phone ", CAMPAIGN, user_ids=("42",)), ADA)
    [kept] = list_actions(ledger)
    assert (kept.actor, kept.actor_kind, kept.run_key) == ("ada", "airflow", ADA.run_key)
    assert (kept.database_role, kept.action, kept.reason) == ("postgres", "suppress", "asked by phone")
    assert (kept.arguments, kept.result) == (
        {"campaign": CAMPAIGN, "user_ids": ["42"]},
        "suppressed. No run has seen user 42",
    )


def test_suppressing_says_how_many_are_new_and_whom_no_run_has_seen(ledger) -> None:
    def said(action: Action, *user_ids: str) -> str:
        return give(ledger, ordered(action, *user_ids)).result

    add_sends(ledger, ["1", "2", "3", "4"])
    assert said(Action.SUPPRESS, "1", "2") == "suppressed: 2 of 2"
    assert said(Action.SUPPRESS, "2", "3") == "suppressed: 1 of 2; the others were so before"
    assert said(Action.SUPPRESS, "4") == "suppressed"
    assert said(Action.SUPPRESS, "5", "6") == "suppressed: 2 of 2. No run has seen users 5, 6"
    assert said(Action.UNSUPPRESS, "5", "6") == "suppression lifted: 2 of 2"
    assert said(Action.UNSUPPRESS, "4", "5") == "suppression lifted: 1 of 2; the others were not suppressed"


def test_resume_names_the_halt_that_still_holds(ledger) -> None:
    everywhere = Order(Action.HALT, "an incident")
    give(ledger, everywhere, ADA)
    give(ledger, ordered(Action.HALT))
    lifted = give(ledger, ordered(Action.RESUME)).result
    assert lifted.startswith(
        "that halt is lifted. Another halt still holds: all campaigns, halted by ada since "
    )
    assert lifted.endswith("(an incident)")
    none = give(ledger, ordered(Action.RESUME)).result
    assert none.startswith(
        "there was no such halt; nothing changed. Another halt still holds: all campaigns,"
    )
    give(ledger, ordered(Action.HALT))
    on = give(ledger, replace(everywhere, action=Action.RESUME)).result
    assert on.startswith(
        f"sending goes on. Another halt still holds: {CAMPAIGN}, halted by postgres (command, bob)"
    )
    assert give(ledger, ordered(Action.RESUME)).result == "sending goes on"


def test_resume_on_a_ledger_that_is_not_trusted_says_that_nothing_goes_out(ledger) -> None:
    give(ledger, ordered(Action.HALT))
    ledger.execute("INSERT INTO lifecycle.restores (finding) VALUES ('another server')")
    said = give(ledger, ordered(Action.RESUME)).result
    assert said.startswith(
        "that halt is lifted. Another halt still holds: all campaigns, halted by the package ("
    )
    assert "another server" in said


def test_halt_of_another_campaign_is_not_in_the_way(ledger) -> None:
    give(ledger, ordered(Action.HALT))
    add_cohort(ledger, "other")
    give(ledger, Order(Action.HALT, "typo", "other"))
    assert give(ledger, ordered(Action.RESUME)).result == "sending goes on"


def test_suppressed_address_is_kept_as_its_hash_only(ledger) -> None:
    give(ledger, Order(Action.SUPPRESS, "asked", address="ada@example.com"))
    [kept] = list_actions(ledger)
    assert [(bytes.fromhex(kept.arguments["address_hash"]),)] == ledger.execute(
        "SELECT address_hash FROM lifecycle.suppressions"
    ).fetchall()
    assert "example.com" not in str(kept)


def test_run_does_its_action_once_however_often_it_is_cleared(ledger) -> None:
    assert give(ledger, ordered(Action.HALT), ADA) == Done("sending is halted")
    give(ledger, ordered(Action.RESUME))
    assert give(ledger, ordered(Action.HALT), ADA) == Done("sending is halted", before=True)
    assert ledger.execute("SELECT count(*) FROM lifecycle.halts WHERE lifted_at IS NULL").fetchone() == (0,)
    assert len(list_actions(ledger)) == 2


def test_two_tasks_of_one_run_at_once_do_its_action_once(ledger, ledger_database: str) -> None:
    barrier = Barrier(2)

    def one() -> Done:
        with connect(ledger_database) as own:
            barrier.wait()
            return give(own, ordered(Action.HALT), ADA)

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(one), pool.submit(one)]]
    assert sorted(each.before for each in done) == [False, True]
    assert len(list_actions(ledger)) == 1


def test_run_that_asks_for_something_else_is_refused(ledger) -> None:
    give(ledger, ordered(Action.HALT), ADA)
    with pytest.raises(LedgerError, match="has done another action before; nothing was changed"):
        give(ledger, ordered(Action.RESUME), ADA)


def test_refused_action_leaves_nothing_and_its_run_may_try_again(ledger) -> None:
    with pytest.raises(LedgerError, match="not in campaign day4_follow_up: user 42"):
        give(ledger, ordered(Action.RELEASE, "42"), ADA)
    assert audit(ledger) == []
    add_sends(ledger, ["42"], state="rejected")
    assert give(ledger, ordered(Action.RELEASE, "42"), ADA).before is False


def test_second_operator_is_told_who_was_first(ledger) -> None:
    give(ledger, ordered(Action.HALT), ADA)
    second = give(ledger, ordered(Action.HALT))
    assert second.result.startswith("was halted before, by ada since ")
    assert second.result.endswith("(mended it); nothing changed")
    assert ledger.execute("SELECT count(*) FROM lifecycle.halts").fetchone() == (1,)


@pytest.mark.parametrize(
    "order",
    [ordered(Action.EXTEND, days=2, approved_users=9), ordered(Action.SETTLE_AS_SENT)],
    ids=["extend", "settle"],
)
def test_range_that_ends_in_the_future_is_refused(ledger, order: Order) -> None:
    make_doubts(ledger, ["1"])
    future = datetime.now(UTC).date() + timedelta(days=2)
    with pytest.raises(LedgerError, match=f"{future} is in the future. Nothing was changed"):
        give(ledger, replace(order, cohort_from=COHORT_DATE, cohort_to=future))
    assert (states(ledger), audit(ledger)) == ({"1": "in_doubt"}, [])


def test_settling_by_filter_and_by_name(ledger) -> None:
    make_doubts(ledger, ["1", "2", "3"])
    assert give(ledger, ordered(Action.SETTLE_AS_SENT, "1"), ADA).result == "1 settled as sent"
    dates = {"cohort_from": COHORT_DATE, "cohort_to": COHORT_DATE}
    again = give(ledger, ordered(Action.SETTLE_TO_SEND_AGAIN, **dates)).result
    assert again.startswith("2 settled: they are judged again by the next run\nThe ledger cannot know")
    assert states(ledger) == {"1": "sent", "2": "planned", "3": "planned"}


def test_mail_that_may_be_in_flight_is_not_settled(ledger) -> None:
    make_doubts(ledger, ["1"], age=timedelta())
    ledger.execute("UPDATE lifecycle.batches SET lease_until = now() + interval '1 minute'")
    with pytest.raises(LedgerError, match="an answer may still come for user 1"):
        give(ledger, ordered(Action.SETTLE_TO_SEND_AGAIN, everybody=True), ADA)
    assert (states(ledger), audit(ledger)) == ({"1": "in_doubt"}, [])


def test_extension_names_its_total_and_is_done_only_when_that_is_approved(ledger) -> None:
    add_sends(ledger, ["1", "2"])
    dates = {"cohort_from": COHORT_DATE, "cohort_to": COHORT_DATE, "days": 3}
    with pytest.raises(LedgerError, match=r"2 users not mailed yet.* approved_users = 2"):
        give(ledger, ordered(Action.EXTEND, **dates), ADA)
    add_sends(ledger, ["3"])
    with pytest.raises(LedgerError, match="3 users are concerned by now, and 2 were approved"):
        give(ledger, ordered(Action.EXTEND, **dates, approved_users=2), ADA)
    before = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()[0]
    assert give(ledger, ordered(Action.EXTEND, **dates, approved_users=3), ADA).result.startswith(
        "extended: "
    )
    assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone() == (
        before + timedelta(days=3),
    )


def test_range_extended_before_is_extended_again_only_by_whoever_knows_of_it(ledger) -> None:
    order = ordered(
        Action.EXTEND, cohort_from=COHORT_DATE, cohort_to=COHORT_DATE, days=3, approved_users=0
    )  # fmt: skip
    give(ledger, order, ADA)
    extended = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall()
    with pytest.raises(
        LedgerError, match=r"extended 1 time before, last by ada at .* earlier_extensions = 1$"
    ):
        give(ledger, replace(order, approved_users=None))
    with pytest.raises(
        LedgerError,
        match=r"extended 1 time before, last by ada at .* nothing was changed.* earlier_extensions = 1$",
    ):
        give(ledger, order)
    assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() == extended
    give(ledger, replace(order, earlier_extensions=1))
    assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() > extended
    assert list_actions(ledger)[0].arguments["earlier_extensions"] == 1


def test_extension_names_whom_it_puts_in_doubt_after_the_ledger_went_back_in_time(ledger) -> None:
    add_sends(ledger, ["1", "2"])
    let_time_pass(ledger, timedelta(days=3))
    let_go(ledger, None, datetime.now(UTC) - timedelta(hours=1))
    dates = {"cohort_from": COHORT_DATE, "cohort_to": COHORT_DATE, "days": 3}
    said = give(ledger, ordered(Action.EXTEND, **dates, approved_users=2), ADA).result
    assert "2 of them are in doubt now" in said
    assert "lifecycle settle day4_follow_up" in said


def test_act_outside_the_ledger_is_written_down_first_and_never_begun_twice(ledger) -> None:
    test = ordered(Action.SEND_TEST, "1")
    action_id = begin_action(ledger, test, ADA, test.arguments())
    assert isinstance(action_id, int)
    unknown = begin_action(ledger, test, ADA, test.arguments())
    assert unknown == Done("it was begun, and what came of it is not known; nothing is repeated", before=True)
    end_action(ledger, action_id, "the mail server accepted it")
    assert begin_action(ledger, test, ADA, test.arguments()) == Done(
        "the mail server accepted it", before=True
    )


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lifecycle.actions SET result = 'another'",
        "UPDATE lifecycle.actions SET actor = 'eve'",
        "UPDATE lifecycle.actions SET happened_at = now() - interval '1 day'",
        "DELETE FROM lifecycle.actions",
        "TRUNCATE lifecycle.actions",
    ],
)
def test_audit_is_never_rewritten(ledger, change: str) -> None:
    give(ledger, ordered(Action.HALT))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="what people did is kept"):
        ledger.execute(change)


def test_actions_are_listed_by_campaign_newest_first(ledger) -> None:
    give(ledger, ordered(Action.HALT))
    give(ledger, Order(Action.SUPPRESS, "asked", user_ids=("42",)))
    give(ledger, Order(Action.HALT, "all of it"))
    add_cohort(ledger, "other")
    give(ledger, Order(Action.HALT, "that one", "other"))
    give(ledger, ordered(Action.RESUME))
    of_campaign = list_actions(ledger, campaign_id=CAMPAIGN)
    assert [(done.action, done.reason) for done in of_campaign] == [
        ("resume", "mended it"), ("halt", "all of it"), ("halt", "mended it"),
    ]  # fmt: skip
    assert [done.reason for done in list_actions(ledger, at_most=2)] == ["mended it", "that one"]


@pytest.mark.parametrize(
    ("verdict", "actor", "kind", "action"),
    [
        (VolumeVerdict.APPROVED, "olaf", "airflow", "approve_cohort"),
        (VolumeVerdict.REFUSED, "olaf", "airflow", "refuse_cohort"),
        (VolumeVerdict.REFUSED, None, "nobody", "refuse_cohort"),
    ],
)
def test_actions_have_what_was_answered_about_a_cohort_of_unusual_size(
    ledger, verdict: VolumeVerdict, actor: str | None, kind: str, action: str
) -> None:
    cohort_held_back(ledger)
    assert count_awaiting_approval(ledger) == [(CAMPAIGN, 1)]
    record_answer(ledger, CAMPAIGN, [(COHORT_DATE, 500)], verdict, actor=actor, reason="a fair")
    assert count_awaiting_approval(ledger) == [(CAMPAIGN, 0)]
    give(ledger, ordered(Action.HALT))
    add_cohort(ledger, "other")
    halt, answer = list_actions(ledger, campaign_id=CAMPAIGN)
    assert (halt.action, answer.action, answer.actor_kind) == ("halt", action, kind)
    assert (answer.actor, answer.reason) == (actor or "nobody", "a fair")
    assert answer.result == f"cohort {COHORT_DATE} of 500 users {verdict}"
    assert [done.action for done in list_actions(ledger, campaign_id="other")] == []
