"""Judging planned sends: suppressed or too late, then the frequency cap. All in sets, all in Postgres.

The second and third step of the daily run. Knows named queries and the cap's rules. Must not know Airflow,
SMTP or the source; people appear only as ids, and only on their way into the ledger's own tables.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.daily_limit import DailyLimit
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.alerts import Refusal, record_limit_exceeded
from lifecycle_emails.ledger.batches import Group, ready_groups
from lifecycle_emails.ledger.lateness import hold_late
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filtered:
    """Users after the filter: ``held`` by reason, ``already_sent`` (untouched), ``to_judge`` by the cap."""

    held: dict[str, int]
    already_sent: int
    to_judge: int

    def as_dict(self) -> dict[str, Any]:
        """For XCom: counts only."""
        return asdict(self)


@dataclass(frozen=True)
class Limited:
    """Users after the limits: ``ready`` hold a slot; alert ``alert_id`` names the newly capped.

    ``capped`` and ``over_daily_limit`` hold none.
    """

    ready: int
    capped: int
    over_daily_limit: int
    newly_refused: int
    alert_id: str | None
    groups: tuple[Group, ...]

    def as_dict(self) -> dict[str, Any]:
        """For XCom: counts and batch numbers, no people."""
        return {**asdict(self), "groups": [group.as_dict() for group in self.groups]}


def filter_ledger(
    ledger: LedgerConnection,
    campaign: Campaign,
    cohort_dates: Sequence[date],
    *,
    max_lateness_days: int | None = None,
) -> Filtered:
    """Hold whoever is suppressed or past the deadline, and put back those whose reason has gone.

    ``max_lateness_days`` is the run's own, shorter deadline, if it has one (see `hold_late`). Users already
    sent, in flight, in doubt or rejected are counted and never touched.
    """
    arguments = {"campaign": campaign.id, "cohort_dates": list(cohort_dates)}
    with planning_transaction(ledger):
        ledger.execute(query("lock_campaign"), arguments)
        again = ledger.execute(query("judge_again"), arguments).rowcount
        held = ledger.execute(query("hold_unsendable"), arguments).rowcount
        held += hold_late(ledger, campaign, cohort_dates, max_lateness_days)
        counts = ledger.execute(query("count_states"), arguments).fetchall()
    log.info("%s: %d users held by the filter, %d judged again", campaign.id, held, again)
    return Filtered(
        held={reason: count for state, reason, count in counts if state == "held"},
        already_sent=sum(count for state, _, count in counts if state == "sent"),
        to_judge=sum(count for state, _, count in counts if state == "planned"),
    )


def limit_rate(
    ledger: LedgerConnection,
    campaign: Campaign,
    rules: Sequence[CapRule],
    cohort_dates: Sequence[date],
    *,
    callbacks: Sequence[str],
    run: str,
    max_groups: int,
    daily_limits: Sequence[DailyLimit] = (),
    max_lateness_days: int | None = None,
) -> Limited:
    """Reserve a frequency-cap slot for every planned user, or hold as ``capped`` or ``daily_limit``.

    Exact under concurrency: the cap lock is taken in a statement of its own, before the count. Users newly
    refused are recorded in the same transaction with one alert, due to each of ``callbacks`` (their keys).
    Cohorts that the volume breaker holds back stay planned, and so do those that have grown since it looked.
    ``max_lateness_days``: as for `filter_ledger`.
    ``run`` names the run in that alert; ``max_groups`` bounds the groups returned. The groups hold every
    ready row of the cohorts, whoever made it ready, so a repeat after a lost answer returns them again.
    """
    arguments: dict[str, Any] = {
        "campaign": campaign.id,
        "cohort_dates": list(cohort_dates),
        "judge_capped": campaign.on_cap == "defer",
        "rules": [rule.name for rule in rules],
        "max_sends": [rule.max_sends for rule in rules],
        "windows": [rule.window for rule in rules],
        "tells": bool(callbacks),
    }
    with planning_transaction(ledger):
        ledger.execute(query("lock_campaign"), arguments)
        ledger.execute(query("lock_frequency_cap"))
        ledger.execute(query("hold_unsendable"), arguments)
        hold_late(ledger, campaign, cohort_dates, max_lateness_days)
        held_back = {row[0] for row in ledger.execute(query("cohorts_held_back"), arguments)}
        arguments["cohort_dates"] = [day for day in cohort_dates if day not in held_back]
        ledger.execute(query("judge_cap"), arguments)
        ledger.execute(query("index_refused"))
        ledger.execute(query("hold_capped"), arguments)
        if daily_limits:
            _hold_over_daily_limit(ledger, daily_limits, arguments)
        reserved = ledger.execute(query("reserve_slots"), arguments).rowcount
        refusals = [Refusal(*row) for row in ledger.execute(query("record_refusals"), arguments)]
        ledger.execute(query("drop_refused"))
        alert_id = record_limit_exceeded(
            ledger, campaign, rules, refusals, cohort_date=max(cohort_dates), callbacks=callbacks, run=run
        )
        counts = ledger.execute(query("count_states"), arguments).fetchall()
    ready = sum(count for state, _, count in counts if state == "ready")
    capped = sum(count for _, reason, count in counts if reason == "capped")
    over_daily_limit = sum(count for _, reason, count in counts if reason == "daily_limit")
    log.info(
        "%s: %d users ready (%d newly), %d held by the frequency cap", campaign.id, ready, reserved, capped
    )
    return Limited(
        ready=ready,
        capped=capped,
        over_daily_limit=over_daily_limit,
        newly_refused=len({refusal.user_id for refusal in refusals}),
        alert_id=alert_id,
        groups=ready_groups(ledger, campaign, cohort_dates, max_groups=max_groups),
    )


def _hold_over_daily_limit(
    ledger: LedgerConnection, limits: Sequence[DailyLimit], arguments: dict[str, Any]
) -> None:
    of_day = {
        "limit_campaigns": [limit.campaign for limit in limits],
        "limit_timezones": [limit.timezone for limit in limits],
        "limit_max_sends": [limit.max_sends for limit in limits],
    }
    (room,) = one_row(ledger.execute(query("daily_room"), of_day))
    told = "daily limit: " + ", ".join(str(limit) for limit in limits)
    over = ledger.execute(query("hold_over_daily_limit"), {**arguments, "room": room, "limits": told})
    log.info("%s: %d mails are left for today, %d users newly held (%s)",
             arguments["campaign"], room, over.rowcount, told)  # fmt: skip
