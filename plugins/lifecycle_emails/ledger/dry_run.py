"""A dry run of the first planning steps, for their counts: the very same code, rolled back at the end.

Who would be mailed is for `judged_cohorts` to say, which goes on to the limits. Knows the steps and their
order. Must not know Airflow or SMTP. Nothing that a real run reads is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.ledger.judging import Filtered, filter_ledger
from lifecycle_emails.ledger.planning import Extracted, extract_cohort
from lifecycle_emails.ledger.session import LedgerConnection, planning_transaction


@dataclass(frozen=True)
class DryRun:
    """What each step would do; None for the filter where it was not asked for."""

    extracted: Extracted
    filtered: Filtered | None = None


def dry_run(
    ledger: LedgerConnection,
    source: psycopg.Connection[Any],
    campaign: Campaign,
    audience: Audience,
    cohort_date: date,
    *,
    with_earlier: bool,
    upto: Literal["extract", "filter"],
    max_lateness_days: int | None = None,
) -> DryRun:
    """Do the steps up to ``upto``, tell what they did, and roll all of it back.

    Holds the campaign's lock until then: other runs wait, none sees anything.
    """
    filtered = None
    with planning_transaction(ledger, actor="dry run", roll_back=True):
        extracted = extract_cohort(ledger, source, campaign, audience, cohort_date, with_earlier=with_earlier)
        if upto == "filter":
            filtered = filter_ledger(
                ledger, campaign, extracted.cohort_dates, max_lateness_days=max_lateness_days
            )
    return DryRun(extracted, filtered)
