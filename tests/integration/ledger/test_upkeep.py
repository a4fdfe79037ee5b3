"""Upkeep: doubts surfaced and told once, the stale held, gaps found, detail dropped, keys never."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.alerts import undelivered_alerts
from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.evidence import Doubt, Fact, Proof, doubts
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.releasing import release
from lifecycle_emails.ledger.session import one_row
from lifecycle_emails.ledger.upkeep import keep_up, oldest_open_rows
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    let_time_pass,
    make_campaign,
    make_doubts,
    states,
)

BEFORE_ANY_TICK = datetime(2026, 5, 5, tzinfo=UTC)


class Accepted:
    """Evidence that the server accepted this user's mails."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        return [
            Proof(key, Fact.ACCEPTED, None, "4Q1", "log: accepted")
            for key, doubt in doubts.items()
            if doubt.user_id == self.user_id
        ]


def test_row_that_somebody_has_locked_keeps_no_other_from_the_sweep(ledger_database: str) -> None:
    with connect(ledger_database) as ledger, connect(ledger_database) as sender:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2"], state="sending")
        let_time_pass(ledger, timedelta(minutes=11))
        with sender.transaction():
            sender.execute(query("lock_sends"), {"campaign": "day4_follow_up", "user_ids": ["1"]})
            assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 1
            assert states(ledger) == {"1": "sending", "2": "in_doubt"}
            [alert] = undelivered_alerts(ledger, "day4_follow_up")
            assert alert.facts["user_ids"] == ["2"]
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 1


def test_unanswered_send_becomes_in_doubt_after_answer_due_and_is_told_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="sending")
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 0
        let_time_pass(ledger, timedelta(minutes=11))
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 1
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).in_doubt == 0
        [alert] = undelivered_alerts(ledger, "day4_follow_up")
        assert states(ledger) == {"1": "in_doubt"}
    assert (alert.kind, alert.facts["user_ids"], alert.facts["cohort_dates"]) == (
        "in_doubt",
        ["1"],
        ["2026-05-01"],
    )


def test_past_the_deadline_planned_and_ready_are_stale_and_the_cohort_closes(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="planned")
        add_sends(ledger, ["2"], state="ready")
        add_sends(ledger, ["3"], state="held", held_reason="capped")
        add_sends(ledger, ["4"], state="sending")
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).stale == 0
        let_time_pass(ledger, timedelta(days=2))
        upkeep = keep_up(ledger, (), now=BEFORE_ANY_TICK)
        assert states(ledger) == {"1": "held/stale", "2": "held/stale", "3": "held/capped", "4": "in_doubt"}
    assert (upkeep.stale, upkeep.in_doubt, upkeep.closed) == (2, 1, 1)


def test_cohort_with_a_row_whose_answer_may_come_is_not_closed(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger, not_after=datetime.now(UTC) + timedelta(minutes=5))
        add_sends(ledger, ["1"], state="sending")
        let_time_pass(ledger, timedelta(minutes=6))
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).closed == 0
        let_time_pass(ledger, timedelta(minutes=6))
        upkeep = keep_up(ledger, (), now=BEFORE_ANY_TICK)
    assert (upkeep.in_doubt, upkeep.closed) == (1, 1)


@pytest.mark.parametrize("late", [RecordedAs.NO_DOT, RecordedAs.RETRY])
def test_late_refusal_in_a_closed_cohort_opens_it_and_the_next_round_holds_the_user(
    ledger_database: str, late: RecordedAs
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger, not_after=datetime.now(UTC) + timedelta(minutes=5))
        add_sends(ledger, ["1"], state="ready")
        with open_gate(ledger_database) as gate:
            attempt = uuid4()
            assert gate.ask("1", attempt, HASH) is Passage.PASSED
            let_time_pass(ledger, timedelta(minutes=12))
            assert keep_up(ledger, (), now=BEFORE_ANY_TICK).closed == 1
            assert states(ledger) == {"1": "in_doubt"}
            gate.record(Record("1", attempt, late, detail="the process was frozen until now"))
            assert gate.flush(timeout=10)
        upkeep = keep_up(ledger, (), now=BEFORE_ANY_TICK)
        assert states(ledger) == {"1": "held/stale"}
    assert (upkeep.stale, upkeep.closed) == (1, 1)


REFUSED_LATE = "UPDATE lifecycle.sends SET state = 'planned', detail = 'refused late'"


def test_refusal_that_is_committed_while_its_cohort_closes_leaves_nobody_behind(ledger_database: str) -> None:
    with connect(ledger_database) as ledger, connect(ledger_database) as refusing:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="in_doubt")
        let_time_pass(ledger, timedelta(days=2))
        with refusing.transaction():
            refusing.execute(REFUSED_LATE)
            closing = threading.Thread(target=_keep_up_on_its_own, args=(ledger_database,))
            closing.start()
            while closing.is_alive() and not _somebody_waits(ledger):
                pass
        closing.join(timeout=30)
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).closed == 1
        assert states(ledger) == {"1": "held/stale"}


def test_refusal_that_begins_while_its_cohort_closes_leaves_nobody_behind(ledger_database: str) -> None:
    with connect(ledger_database) as ledger, connect(ledger_database) as closing:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="in_doubt")
        let_time_pass(ledger, timedelta(days=2))
        with closing.transaction():
            closed = closing.execute(query("close_cohorts"), {"campaign": "day4_follow_up"})
            assert closed.rowcount == 1
            refusing = threading.Thread(target=_refuse_on_its_own, args=(ledger_database,))
            refusing.start()
            while refusing.is_alive() and not _somebody_waits(ledger):
                pass
        refusing.join(timeout=30)
        assert keep_up(ledger, (), now=BEFORE_ANY_TICK).closed == 1
        assert states(ledger) == {"1": "held/stale"}


def test_late_refusal_long_before_the_deadline_waits_for_no_plan_of_its_cohort(ledger_database: str) -> None:
    with connect(ledger_database) as ledger, connect(ledger_database) as planning:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="in_doubt")
        let_time_pass(ledger, timedelta(hours=1))
        with planning.transaction():
            planning.execute("UPDATE lifecycle.cohorts SET audience_size = 1")
            ledger.execute("SET lock_timeout = '1s'")
            ledger.execute(REFUSED_LATE)
        assert states(ledger) == {"1": "planned"}


def _keep_up_on_its_own(url: str) -> None:
    with connect(url) as ledger:
        keep_up(ledger, (), now=BEFORE_ANY_TICK)


def _refuse_on_its_own(url: str) -> None:
    with connect(url) as ledger:
        ledger.execute(REFUSED_LATE)


def _somebody_waits(ledger: psycopg.Connection[Any]) -> bool:
    waiting = ledger.execute(
        "SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
        " WHERE NOT l.granted AND a.datname = current_database()"
    )
    return waiting.fetchone() is not None


@pytest.mark.parametrize("evidence", [(), (Accepted("2"),)])
def test_campaign_that_is_being_planned_delays_no_word_of_another(
    ledger_database: str, evidence: tuple[Accepted, ...]
) -> None:
    """A long plan or a dry run holds its campaign's lock and the cap's for up to half an hour."""
    with connect(ledger_database) as ledger, connect(ledger_database) as planner:
        for campaign_id in ("being_planned", "other"):
            add_cohort(ledger, campaign_id)
            add_sends(ledger, ["1", "2"], campaign_id, state="sending")
        add_sends(ledger, ["3"], "other")
        let_time_pass(ledger, timedelta(days=2))
        with planner.transaction():
            planner.execute(query("lock_campaign"), {"campaign": "being_planned"})
            planner.execute(query("lock_frequency_cap"))
            began = time.monotonic()
            done = keep_up(
                ledger, [make_campaign(id="being_planned")], now=BEFORE_ANY_TICK, evidence=evidence
            )
            assert time.monotonic() - began < 60
            assert (done.in_doubt, done.stale, done.closed, done.settled) == (4, 1, 1, 0)
            assert {alert.campaign for alert in undelivered_alerts(ledger, None)} == {
                "being_planned",
                "other",
            }
        after = keep_up(ledger, (), now=BEFORE_ANY_TICK, evidence=evidence)
        assert (after.closed, after.settled) == (1, 2 * len(evidence))


def test_campaign_that_the_database_refuses_ends_the_round_for_no_other_and_is_an_error(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        for campaign_id in ("damaged", "other"):
            add_cohort(ledger, campaign_id)
            add_sends(ledger, ["1"], campaign_id, state="sending")
        let_time_pass(ledger, timedelta(days=2))
        ledger.execute("ALTER TABLE lifecycle.sends ADD CHECK (campaign <> 'damaged') NOT VALID")
        with pytest.raises(psycopg.errors.CheckViolation):
            keep_up(ledger, (), now=BEFORE_ANY_TICK)
        assert [alert.campaign for alert in undelivered_alerts(ledger, None)] == ["other"]
        assert states(ledger, "other") == {"1": "in_doubt"}


def test_gap_between_cohorts_is_told_once(ledger_database: str) -> None:
    campaign = make_campaign()
    with connect(ledger_database) as ledger:
        for day in (1, 2, 5):
            add_cohort(ledger, cohort_date=date(2026, 5, day))
        now = datetime(2026, 5, 10, 6, 30, tzinfo=UTC)  # the tick of cohort 6 May is within its grace
        assert keep_up(ledger, [campaign], now=now).missing == 2
        assert keep_up(ledger, [campaign], now=now).missing == 0
        [alert] = undelivered_alerts(ledger, campaign.id)
        assert alert.facts == {"cohort_dates": ["2026-05-03", "2026-05-04"]}
        assert keep_up(ledger, [campaign], now=now + timedelta(hours=4)).missing == 1


def test_campaign_that_never_ran_has_no_gaps(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        assert keep_up(ledger, [make_campaign()], now=datetime.now(UTC)).missing == 0


def test_those_whom_no_run_mailed_before_their_deadline_are_told_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(
            ledger, ["refused for now"], state="ready", not_before=datetime.now(UTC) + timedelta(minutes=5)
        )
        add_sends(ledger, ["never judged"], state="planned")
        add_sends(ledger, ["mailed"], state="sent")
        add_sends(ledger, ["held"], state="held")
        let_time_pass(ledger, timedelta(days=2))
        for _ in range(2):
            keep_up(ledger, (), now=BEFORE_ANY_TICK)
        [alert] = undelivered_alerts(ledger, None)
        assert (alert.kind, alert.campaign, alert.facts) == (
            "expired",
            "day4_follow_up",
            {"users": 2, "cohort_dates": {COHORT_DATE.isoformat(): 2}},
        )


def test_retention_drops_detail_of_old_cohorts_and_never_a_key(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(
            ledger,
            cohort_date=COHORT_DATE + timedelta(days=1),
            not_after=datetime.now(UTC) + timedelta(days=90),
        )
        add_sends(ledger, ["old"], state="sent", detail="dot: 250", queue_id="Q1", address_hash=bytes(16))
        add_sends(
            ledger, ["new"], cohort_date=COHORT_DATE + timedelta(days=1), state="sent", detail="dot: 250"
        )
        let_time_pass(ledger, timedelta(days=2))
        keep_up(ledger, (), now=BEFORE_ANY_TICK)
        let_time_pass(ledger, timedelta(days=31))
        keep_up(ledger, (), now=BEFORE_ANY_TICK, keep=timedelta(days=30))
        rows = ledger.execute(
            "SELECT user_id, state::text, detail, queue_id FROM lifecycle.sends ORDER BY 1"
        ).fetchall()
    assert rows == [("new", "sent", "dot: 250", None), ("old", "sent", None, None)]


def test_retention_drops_the_detail_of_a_cohort_that_was_opened_again(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="sent", detail="dot: 250")
        for _ in range(2):
            let_time_pass(ledger, timedelta(days=2))
            keep_up(ledger, (), now=BEFORE_ANY_TICK)
            let_time_pass(ledger, timedelta(days=31))
            keep_up(ledger, (), now=BEFORE_ANY_TICK, keep=timedelta(days=30))
            assert one_row(ledger.execute("SELECT detail FROM lifecycle.sends")) == (None,)
            ledger.execute("UPDATE lifecycle.cohorts SET closed_at = NULL")
            ledger.execute("UPDATE lifecycle.sends SET detail = 'dot: 250'")


def test_retention_keeps_what_keeps_a_mail_from_being_sent_again(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["doubt"])
        for state in ("rejected", "in_doubt"):
            add_sends(ledger, [state], state=state, detail="dot: 250", queue_id="Q1", address_hash=bytes(16))
        let_time_pass(ledger, timedelta(days=2))
        keep_up(ledger, (), now=BEFORE_ANY_TICK)
        let_time_pass(ledger, timedelta(days=31))
        keep_up(ledger, (), now=BEFORE_ANY_TICK, keep=timedelta(days=30))
        rows = ledger.execute(
            "SELECT user_id, detail, queue_id, address_hash FROM lifecycle.sends WHERE queue_id IS NOT NULL"
        ).fetchall()
        assert sorted(rows) == [("in_doubt", None, "Q1", None), ("rejected", None, "Q1", None)]
        with pytest.raises(LedgerError, match="before it bounced"):
            release(ledger, "day4_follow_up", ["rejected"], reason="x")
        assert [doubt.user_id for doubt in doubts(ledger)] == ["doubt"]  # found through its history


def test_oldest_open_row_comes_down_when_the_last_cohort_closes(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"])
        let_time_pass(ledger, timedelta(hours=7))
        [(_, seconds)] = oldest_open_rows(ledger)
        assert seconds >= 7 * 3600
        let_time_pass(ledger, timedelta(days=2))
        keep_up(ledger, (), now=datetime.now(UTC))
        assert ledger.execute("SELECT closed_at IS NOT NULL FROM lifecycle.cohorts").fetchall() == [(True,)]
        assert oldest_open_rows(ledger) == [("day4_follow_up", 0.0)]
