"""Planning a cohort: freeze its window, read the audience, give every user a row and a batch.

The first step of the daily run. Knows the ledger's tables through named queries and the audience through its
iterator of members. Must not know Airflow, SMTP, or what becomes of a planned user (see `judging`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import Cohort, natural_cohort
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.arriving import copy_arrivals, hashed_members
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extracted:
    """What `extract_cohort` found, in users, summed over ``cohort_dates``.

    ``found`` = ``new`` + ``moved`` (from another cohort) + ``known`` (planned here before) + ``elsewhere``
    (on its way, in doubt or done in another cohort, and staying there).
    """

    cohort_dates: tuple[date, ...]
    found: int
    new: int
    moved: int
    known: int
    elsewhere: int

    def as_dict(self) -> dict[str, Any]:
        """For XCom: counts and dates, no people."""
        return {**asdict(self), "cohort_dates": [day.isoformat() for day in self.cohort_dates]}


def extract_cohort(
    ledger: LedgerConnection,
    source: psycopg.Connection[Any],
    campaign: Campaign,
    audience: Audience,
    cohort_date: date,
    *,
    with_earlier: bool,
) -> Extracted:
    """Plan the cohort of ``cohort_date`` and, for scheduled runs, the campaign's earlier unfinished ones.

    Each cohort is one transaction: planned whole or not at all, and safe to repeat. ``with_earlier`` adds the
    cohorts still before their deadline and the gaps that were never planned, oldest first.

    Raises SourceError when the audience cannot be read or returns a user twice.
    """
    dates = [cohort_date]
    if with_earlier:
        arguments = {"campaign": campaign.id, "cohort_date": cohort_date}
        dates = [row[0] for row in ledger.execute(query("cohorts_to_finish"), arguments)] + dates
    plans = [_plan(ledger, source, campaign, audience, day) for day in dates]
    return Extracted(
        cohort_dates=tuple(dates),
        found=sum(plan.found for plan in plans),
        new=sum(plan.new for plan in plans),
        moved=sum(plan.moved for plan in plans),
        known=sum(plan.known for plan in plans),
        elsewhere=sum(plan.elsewhere for plan in plans),
    )


def frozen_cohort(ledger: LedgerConnection, campaign_id: str, cohort_date: date) -> Cohort | None:
    """The cohort as it was frozen when first planned, or None when it never was."""
    arguments = {"campaign": campaign_id, "cohort_date": cohort_date}
    row = ledger.execute(query("find_cohort"), arguments).fetchone()
    return Cohort(*row) if row else None


def planned_cohort(ledger: LedgerConnection, campaign_id: str, cohort_date: date) -> Cohort:
    """The frozen cohort of a send; raises LedgerError when there is none, which its sends rule out."""
    cohort = frozen_cohort(ledger, campaign_id, cohort_date)
    if cohort is None:
        raise LedgerError(f"the ledger has no cohort {cohort_date} of {campaign_id}; run its extract_cohort")
    return cohort


def changed_since_frozen(cohort: Cohort, campaign: Campaign) -> list[str]:
    """What the campaign file says differently now; the frozen values stay in force for this cohort."""
    natural = natural_cohort(campaign, cohort.cohort_date)
    return [
        f"{name} is {frozen} for this cohort; the campaign file now says {now}"
        for name, frozen, now in (
            ("timezone", cohort.timezone, natural.timezone),
            ("offset_days", cohort.offset_days, natural.offset_days),
            ("deadline", cohort.not_after, natural.not_after),
        )
        if frozen != now
    ]


def _plan(
    ledger: LedgerConnection,
    source: psycopg.Connection[Any],
    campaign: Campaign,
    audience: Audience,
    cohort_date: date,
) -> Extracted:
    arguments: dict[str, Any] = {
        "campaign": campaign.id,
        "cohort_date": cohort_date,
        "batch_size": campaign.batch_size,
    }
    with planning_transaction(ledger):
        ledger.execute(query("lock_campaign"), arguments)
        known_cohort = frozen_cohort(ledger, campaign.id, cohort_date)
        arguments["first_time"] = known_cohort is None
        cohort = known_cohort or _freeze(ledger, campaign, cohort_date)
        for change in changed_since_frozen(cohort, campaign):
            log.warning("%s, cohort %s: %s", campaign.id, cohort_date, change)
        (hash_key,) = one_row(ledger.execute(query("address_hash_key")))
        with _arrivals(ledger):
            arrivals = hashed_members(audience.members(source, cohort), hash_key, audience.name)
            found, new = copy_arrivals(ledger, arrivals, arguments)
            new += ledger.execute(query("plan_arrivals"), arguments).rowcount
            arguments["known"] = found - new
            moved = ledger.execute(query("move_arrivals"), arguments).rowcount
            ledger.execute(query("refresh_arrivals"), arguments)
            departed = _hold_departures(ledger, arguments)
            ledger.execute(query("hold_unaddressed"), arguments)
            ledger.execute(query("create_batches"), arguments)
            elsewhere, without_row = one_row(ledger.execute(query("count_arrivals"), arguments))
            here = found - elsewhere - without_row
            ledger.execute(query("note_audience"), {**arguments, "found": found, "without_row": without_row})
        # last: note_audience has waited for a release under way, whose word this statement then sees
        in_doubt = ledger.execute(query("doubt_arrivals"), arguments).rowcount
    log.info(
        "%s, cohort %s: %d users in the audience, %d new, %d moved here from another cohort, %d already "
        "mailed, being mailed, in doubt or rejected in another cohort, %d have left the audience",
        campaign.id, cohort_date, found, new, moved, elsewhere, departed,
    )  # fmt: skip
    if in_doubt:
        log.warning(
            "%s, cohort %s: %d users are in doubt: the ledger went back in time, they may have been mailed",
            campaign.id, cohort_date, in_doubt,
        )  # fmt: skip
    return Extracted((cohort_date,), found, new, moved, here - new - moved, elsewhere)


def _freeze(ledger: LedgerConnection, campaign: Campaign, cohort_date: date) -> Cohort:
    """Freeze the cohort between its neighbours, so that a changed zone leaves no gap and no overlap."""
    natural = natural_cohort(campaign, cohort_date)
    arguments = {"campaign": campaign.id, "cohort_date": cohort_date}
    row = ledger.execute(query("neighbouring_cohorts"), arguments).fetchone()
    previous_end, next_start = row or (None, None)
    start = previous_end or natural.window_start
    end = max(start, next_start or natural.window_end)
    cohort = Cohort(
        campaign.id, cohort_date, start, end, natural.timezone, natural.offset_days, natural.not_after
    )
    ledger.execute(query("freeze_cohort"), asdict(cohort))
    return cohort


@contextmanager
def _arrivals(ledger: LedgerConnection) -> Iterator[None]:
    """The temporary table of one audience; a dry run plans several cohorts in one transaction."""
    ledger.execute(query("create_arrivals"))
    yield
    ledger.execute(query("drop_arrivals"))


def _hold_departures(ledger: LedgerConnection, arguments: dict[str, Any]) -> int:
    if not arguments["first_time"]:
        ledger.execute(query("index_arrivals"))
    return ledger.execute(query("hold_departures"), arguments).rowcount
