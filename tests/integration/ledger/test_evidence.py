"""Evidence settles what it proves, as sent or rejected; what it does not mention stays in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError, LifecycleError
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.alerts import undelivered_alerts
from lifecycle_emails.ledger.evidence import Doubt, Fact, Proof, doubts, settle_by_evidence
from lifecycle_emails.ledger.judging import limit_rate
from lifecycle_emails.ledger.releasing import release
from lifecycle_emails.ledger.upkeep import keep_up
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    connect,
    make_campaign,
    make_doubts,
    states,
)

AN_HOUR_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


class Says:
    """A source that says of users what the test tells it to."""

    def __init__(self, *said: tuple[str, Fact, datetime | None]) -> None:
        self.said = said

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        keys = {doubt.user_id: key for key, doubt in doubts.items()}
        return [
            Proof(keys[user_id], fact, at, "4Q1", f"log: {fact}")
            for user_id, fact, at in self.said
            if user_id in keys
        ]


class Unreadable:
    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        raise LifecycleError("the log cannot be read")


def row(ledger: psycopg.Connection[Any], user_id: str) -> tuple[Any, ...]:
    found = ledger.execute(
        "SELECT state::text, sent_at, answer_due, queue_id, detail FROM lifecycle.sends WHERE user_id = %s",
        (user_id,),
    ).fetchone()
    assert found is not None
    return found


def test_evidence_settles_what_it_proves_and_nothing_else(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1", "2", "3", "4"])
        source = Says(
            ("1", Fact.ACCEPTED, AN_HOUR_AGO),
            ("1", Fact.DELIVERED, AN_HOUR_AGO + timedelta(minutes=1)),
            ("2", Fact.ACCEPTED, AN_HOUR_AGO),
            ("2", Fact.BOUNCED, AN_HOUR_AGO),
            ("3", Fact.DELIVERED, None),
        )
        report = settle_by_evidence(ledger, [source])
        assert (report.sent, report.bounced, report.contradictions, report.unproven) == (2, 1, (), 1)
        assert states(ledger) == {"1": "sent", "2": "rejected", "3": "sent", "4": "in_doubt"}
        assert row(ledger, "1")[1] == AN_HOUR_AGO
        assert row(ledger, "3")[1] == row(ledger, "3")[2]  # no time in the log: answer_due
        assert row(ledger, "2")[3:] == ("4Q1", "log: bounced")
        events = ledger.execute(
            "SELECT user_id, from_state::text, to_state::text, actor FROM lifecycle.send_events"
            " WHERE from_state = 'in_doubt' ORDER BY user_id"
        ).fetchall()
        assert [event[:3] for event in events] == [
            ("1", "in_doubt", "sent"),
            ("2", "in_doubt", "rejected"),
            ("3", "in_doubt", "sent"),
        ]
        assert {event[3] for event in events} == {"evidence"}


def test_time_to_come_is_not_believed(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        settle_by_evidence(ledger, [Says(("1", Fact.ACCEPTED, datetime.now(UTC) + timedelta(days=1)))])
        assert row(ledger, "1")[1] <= datetime.now(UTC)


def test_time_before_the_gate_is_not_believed_and_the_cap_still_counts_the_send(ledger_database: str) -> None:
    """A log written in local time and read as UTC is hours early."""
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, "other")
        make_doubts(ledger, ["1"])
        add_sends(ledger, ["1"], "other")
        too_early = datetime.now(UTC) - timedelta(hours=9)
        settle_by_evidence(ledger, [Says(("1", Fact.ACCEPTED, too_early))])
        rule = CapRule("daily", 1, timedelta(hours=8))
        limit_rate(
            ledger, make_campaign(id="other"), [rule], [COHORT_DATE], callbacks=(), run="r", max_groups=10
        )
        assert states(ledger) == {"1": "sent"}
        assert states(ledger, "other") == {"1": "held/capped"}


class BouncedWithoutQueueId:
    """A source that knows of bounces, and not what the server called the mail."""

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        return [Proof(key, Fact.BOUNCED, None, None, "the provider's report") for key in doubts]


def test_mail_that_bounced_under_no_known_queue_id_is_not_released_either(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        assert settle_by_evidence(ledger, [BouncedWithoutQueueId()]).bounced == 1
        with pytest.raises(LedgerError, match="before it bounced"):
            release(ledger, "day4_follow_up", ["1"], reason="x")
        assert states(ledger) == {"1": "rejected"}


def test_contradiction_between_sources_is_reported_and_changes_nothing(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        sources = [Says(("1", Fact.DELIVERED, None)), Says(("1", Fact.BOUNCED, AN_HOUR_AGO))]
        report = settle_by_evidence(ledger, sources)
        assert report.contradictions == ("day4_follow_up/1",)
        assert (report.sent, report.bounced) == (0, 0)
        assert states(ledger) == {"1": "in_doubt"}


def test_only_this_campaign_is_settled_where_one_is_named(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        for campaign in ("day4_follow_up", "other"):
            add_cohort(ledger, campaign)
            make_doubts(ledger, ["1"], campaign_id=campaign)
        settle_by_evidence(ledger, [Says(("1", Fact.ACCEPTED, None))], campaign_id="other")
        assert (states(ledger), states(ledger, "other")) == ({"1": "in_doubt"}, {"1": "sent"})


def test_row_settled_meanwhile_is_left_alone(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])

        class LateAnswer:
            def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
                ledger.execute(
                    "UPDATE lifecycle.sends SET state = 'sent', sent_at = now(), queue_id = '4QLATE'"
                )
                return [Proof(key, Fact.BOUNCED, None, "4Q1", "log") for key in doubts]

        report = settle_by_evidence(ledger, [LateAnswer()])
        assert (report.bounced, row(ledger, "1")[0], row(ledger, "1")[3]) == (0, "sent", "4QLATE")


def test_maintenance_settles_before_it_tells(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1", "2"])
        done = keep_up(ledger, (), now=datetime.now(UTC), evidence=[Says(("1", Fact.ACCEPTED, None))])
        assert done.settled == 1
        [alert] = undelivered_alerts(ledger, "day4_follow_up")
        assert alert.facts["user_ids"] == ["2"]


def test_evidence_that_cannot_be_read_stops_no_alert_and_is_an_error(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
        with pytest.raises(LifecycleError, match="cannot be read"):
            keep_up(ledger, (), now=datetime.now(UTC), evidence=[Unreadable()])
        assert len(undelivered_alerts(ledger, "day4_follow_up")) == 1
        assert states(ledger) == {"1": "in_doubt"}


def test_doubts_of_closed_cohorts_are_found_whatever_their_age(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"], age=timedelta(days=600))
        keep_up(ledger, (), now=datetime.now(UTC))
        keep_up(ledger, (), now=datetime.now(UTC))
        assert [doubt.user_id for doubt in doubts(ledger)] == ["1"]
