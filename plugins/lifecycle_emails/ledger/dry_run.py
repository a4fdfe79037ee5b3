"""A dry run of the planning steps: the very same code, in one transaction that is rolled back.

Knows the steps and their order. Must not know Airflow or SMTP. Nothing that a real run reads is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.daily_limit import DailyLimit
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import Filtered, Limited, filter_ledger, limit_rate
from lifecycle_emails.ledger.planning import Extracted, extract_cohort
from lifecycle_emails.ledger.session import LedgerConnection, planning_transaction


@dataclass(frozen=True)
class DryRun:
    """What each step would do; None for steps that were not asked for. No group of it may be sent."""

    extracted: Extracted
    filtered: Filtered | None = None
    limited: Limited | None = None


def dry_run(
    ledger: LedgerConnection,
    source: psycopg.Connection[Any],
    campaign: Campaign,
    audience: Audience,
    rules: Sequence[CapRule],
    cohort_date: date,
    *,
    with_earlier: bool,
    upto: Literal["extract", "filter", "limit"],
    daily_limits: Sequence[DailyLimit] = (),
    max_lateness_days: int | None = None,
) -> DryRun:
    """Do the steps up to ``upto``, tell what they did, and roll all of it back.

    Holds the campaign's lock, and for ``limit`` the cap lock, until then: other runs wait, none sees
    anything.
    """
    filtered = limited = None
    with planning_transaction(ledger, actor="dry run", roll_back=True):
        extracted = extract_cohort(ledger, source, campaign, audience, cohort_date, with_earlier=with_earlier)
        if upto in ("filter", "limit"):
            filtered = filter_ledger(
                ledger, campaign, extracted.cohort_dates, max_lateness_days=max_lateness_days
            )
        if upto == "limit":
            limited = limit_rate(
                ledger,
                campaign,
                rules,
                extracted.cohort_dates,
                callbacks=(),
                run="dry run",
                max_groups=1024,
                daily_limits=daily_limits,
                max_lateness_days=max_lateness_days,
            )
    return DryRun(extracted, filtered, limited)
