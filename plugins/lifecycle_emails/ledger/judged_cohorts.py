"""A dry run over many runs at once: everybody's verdict, in a transaction that is rolled back.

Knows the planning steps and their order. Must not know Airflow, SMTP or templates. Nothing that a real run
reads is changed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import IO, Any

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import Cohort, nominal_tick
from lifecycle_emails.daily_limit import DailyLimit
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.freshness import Freshness
from lifecycle_emails.ledger.approving import check_volume
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.planning import extract_cohort, planned_cohort
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, planning_transaction

ROWS_AT_ONCE = 2000
"""Users fetched at a time, so that memory does not grow with a cohort."""


@dataclass(frozen=True)
class RunToTry:
    """One run: a campaign with what it is planned by, and the run's own cohort."""

    campaign: Campaign
    audience: Audience
    rules: tuple[CapRule, ...]
    cohort_date: date
    with_earlier: bool = False
    """Whether the run also takes the campaign's earlier cohorts that are not finished."""
    daily_limits: tuple[DailyLimit, ...] = ()
    max_lateness_days: int | None = None
    """The run's own, shorter deadline, if it has one."""
    freshness: Freshness | None = None
    """The query by which the volume breaker asks how fresh the source is, if the campaign has one."""


@dataclass(frozen=True)
class JudgedUser:
    """A user as the run would leave the ledger before it sends; ``state`` and so on are those of sends."""

    user_id: str
    state: str
    held_reason: str | None
    detail: str | None
    not_before: str | None


class JudgedCohorts:
    """The users of all cohorts of a dry run, kept in a file: ids and verdicts, no addresses."""

    def __init__(self, spool: IO[str]) -> None:
        self._spool = spool
        self._parts: list[tuple[RunToTry, Cohort, int, int]] = []
        self.elsewhere = 0
        """Users of the audiences who stay in another cohort: mailed, on their way, in doubt or rejected."""

    def __iter__(self) -> Iterator[tuple[RunToTry, Cohort, Iterator[JudgedUser]]]:
        """Give each cohort with its users, who must be read before the next cohort is asked for."""
        for asked, cohort, start, count in self._parts:
            self._spool.seek(start)
            yield asked, cohort, self._users(count)

    def cohorts(self) -> list[tuple[RunToTry, Cohort]]:
        """Name all cohorts, those without users too."""
        return [(asked, cohort) for asked, cohort, _, _ in self._parts]

    def add(self, ledger: LedgerConnection, asked: RunToTry, cohort: Cohort) -> None:
        """Copy the users of a cohort as the ledger has them in this transaction."""
        start, count = self._spool.tell(), 0
        arguments = {"campaign": asked.campaign.id, "cohort_date": cohort.cohort_date}
        with ledger.cursor("judged_users") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            for *words, not_before in cursor.execute(query("judged_users"), arguments):
                at = not_before and not_before.isoformat(timespec="seconds")
                self._spool.write(json.dumps([*words, at]) + "\n")
                count += 1
        self._parts.append((asked, cohort, start, count))

    def _users(self, count: int) -> Iterator[JudgedUser]:
        for _ in range(count):
            yield JudgedUser(*json.loads(self._spool.readline()))


@contextmanager
def judged_cohorts(
    ledger: LedgerConnection, source: psycopg.Connection[Any], asked: Sequence[RunToTry]
) -> Iterator[JudgedCohorts]:
    """Plan and judge these runs' cohorts one after another, as the runs would, and roll all of it back.

    What an earlier one of them takes of a user's frequency cap, a later one finds taken. The locks of the
    campaigns and of the cap are held only until everybody is judged, as by a real run; what is read then
    comes from a file.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        judged = JudgedCohorts(spool)
        with planning_transaction(ledger, actor="dry run", roll_back=True):
            # all of them, in order, before the cap lock: or two runs could wait for each other
            for campaign_id in sorted({one.campaign.id for one in asked}):
                ledger.execute(query("lock_campaign"), {"campaign": campaign_id})
            for one in asked:
                _judge(ledger, source, one, judged)
        yield judged


def in_order_of_runs(asked: Sequence[RunToTry]) -> list[RunToTry]:
    """The order in which the schedules would start them."""
    return sorted(asked, key=lambda one: (logical_date(one.campaign, one.cohort_date), one.campaign.id))


def logical_date(campaign: Campaign, cohort_date: date) -> datetime:
    """The logical date of the run whose own cohort this is, in UTC."""
    return nominal_tick(campaign, cohort_date)


def _judge(
    ledger: LedgerConnection, source: psycopg.Connection[Any], one: RunToTry, judged: JudgedCohorts
) -> None:
    extracted = extract_cohort(
        ledger, source, one.campaign, one.audience, one.cohort_date, with_earlier=one.with_earlier
    )
    judged.elsewhere += extracted.elsewhere
    filter_ledger(ledger, one.campaign, extracted.cohort_dates, max_lateness_days=one.max_lateness_days)
    fresh_until = None if one.freshness is None else one.freshness.fresh_until(source)
    check_volume(ledger, one.campaign, extracted.cohort_dates, fresh_until=fresh_until, run="dry run")
    limit_rate(
        ledger,
        one.campaign,
        one.rules,
        extracted.cohort_dates,
        callbacks=(),
        run="dry run",
        max_groups=1024,
        daily_limits=one.daily_limits,
        max_lateness_days=one.max_lateness_days,
    )
    for day in extracted.cohort_dates:
        judged.add(ledger, one, planned_cohort(ledger, one.campaign.id, day))
