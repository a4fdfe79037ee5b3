"""Cohorts of one size and another in the ledger, and what the volume breaker says of them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import psycopg

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.approving import (
    check_volume,
)
from lifecycle_emails.ledger.judging import Limited, limit_rate
from lifecycle_emails.volume import VolumeVerdict
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    add_sends,
    make_campaign,
)

WITHIN, AWAITING, APPROVED, REFUSED = VolumeVerdict
CAMPAIGN = make_campaign(volume={"factor": 3, "floor": 2, "without_history": 10})
ID = CAMPAIGN.id
NO_CAP = (CapRule("no_cap", 1000, timedelta(days=1)),)
DAY_AFTER = COHORT_DATE + timedelta(days=1)

Ledger = psycopg.Connection[Any]


def read(ledger: Ledger, size: int, day: date = COHORT_DATE) -> None:
    """What an extract leaves: a cohort, and how many users its audience had."""
    add_cohort(ledger, cohort_date=day)
    ledger.execute(
        "UPDATE lifecycle.cohorts SET audience_size = %s, audience_read_at = now() WHERE cohort_date = %s",
        (size, day),
    )


def read_history(ledger: Ledger, *sizes: int) -> None:
    """Cohorts of the days before, the newest first."""
    for days, size in enumerate(sizes, start=1):
        read(ledger, size, COHORT_DATE - timedelta(days=days))


def check(ledger: Ledger, campaign: Campaign = CAMPAIGN, **arguments: Any) -> VolumeVerdict | None:
    return check_volume(ledger, campaign, [COHORT_DATE], run="run", **arguments).get(COHORT_DATE)


def limit(ledger: Ledger, *days: date) -> Limited:
    days = days or (COHORT_DATE,)
    return limit_rate(ledger, CAMPAIGN, NO_CAP, days, callbacks=(), run="run", max_groups=9)


def decisions(ledger: Ledger) -> list[tuple[Any, ...]]:
    return ledger.execute(
        "SELECT cohort_date, from_verdict::text, verdict::text, decided_by, by_a_person, reason, size"
        " FROM lifecycle.volume_decisions ORDER BY decision_id"
    ).fetchall()


def hold_back(ledger: Ledger, *users: str) -> None:
    """A cohort fifty times the usual size, awaiting approval, with some of its users planned."""
    read_history(ledger, 1, 1, 1, 1, 1)
    read(ledger, 50)
    add_sends(ledger, users)
    assert check(ledger) is AWAITING
