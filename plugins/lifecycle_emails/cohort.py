"""Which users a daily run is about: a cohort is the users created on one day in the campaign's time zone.

Pure time arithmetic: half-open windows of aware UTC datetimes, right across clock changes. Must not know
databases, Airflow, or the present time; every date and time comes as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache

import pendulum

from lifecycle_emails.campaign import Campaign

_zone = cache(pendulum.timezone)  # pendulum reads the zone's file anew each time


@dataclass(frozen=True)
class Cohort:
    """The users created in ``[window_start, window_end)``, and when their mail is due.

    The window is in UTC. It may be empty: a zone that moves over the date line skips a whole day.
    """

    campaign: str
    cohort_date: date
    window_start: datetime
    window_end: datetime
    timezone: str
    offset_days: int
    not_after: datetime
    """Deadline, in UTC: no mail of this cohort is sent from then on."""


def natural_cohort(campaign: Campaign, cohort_date: date) -> Cohort:
    """Return the cohort of ``cohort_date`` as the campaign's file says now: midnight to midnight in its zone.

    Cohorts of successive days touch: none of a day's 23, 24 or 25 hours is left out or stands in two of them.
    """
    return Cohort(
        campaign=campaign.id,
        cohort_date=cohort_date,
        window_start=_start_of_day(cohort_date, campaign.timezone),
        window_end=_start_of_day(cohort_date + timedelta(days=1), campaign.timezone),
        timezone=campaign.timezone,
        offset_days=campaign.offset_days,
        not_after=deadline_after(campaign, cohort_date, campaign.max_lateness_days),
    )


def deadline_after(campaign: Campaign, cohort_date: date, max_lateness_days: int) -> datetime:
    """Return when a cohort's deadline is, in UTC, so many calendar days after its scheduled run."""
    return _tick_on(campaign, cohort_date + timedelta(days=campaign.offset_days + max_lateness_days))


def cohort_date_of(campaign: Campaign, logical_date: datetime) -> date:
    """Return the cohort of the run at ``logical_date``: its date in the campaign's zone, less the offset.

    Raises ValueError for a ``logical_date`` without time zone.
    """
    if logical_date.tzinfo is None:
        raise ValueError("logical_date has no time zone; pass an aware datetime")
    local = logical_date.astimezone(_zone(campaign.timezone))
    return date(local.year, local.month, local.day) - timedelta(days=campaign.offset_days)


def nominal_tick(campaign: Campaign, cohort_date: date) -> datetime:
    """Return when the campaign's schedule fires for the cohort of ``cohort_date``, in UTC."""
    return _tick_on(campaign, cohort_date + timedelta(days=campaign.offset_days))


def _tick_on(campaign: Campaign, day: date) -> datetime:
    """Return the schedule's instant on ``day``, in UTC, as Airflow's cron timetables have it.

    A time that the clocks skip is as much later as they move; of one that they show twice it is the second.
    """
    at = campaign.time_of_day
    return _zone(campaign.timezone).datetime(day.year, day.month, day.day, at.hour, at.minute).astimezone(UTC)


def _start_of_day(day: date, timezone: str) -> datetime:
    """Return the first instant, in UTC, at which the date in ``timezone`` is ``day`` or later."""
    zone = _zone(timezone)
    midnight = datetime.combine(day, time(), tzinfo=zone)
    start = midnight.astimezone(UTC)  # where midnight comes twice, the first of them (PEP 495: fold is 0)
    if start.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return start
    # The clocks skip midnight. The day starts when they jump, which is between the readings of midnight by
    # the offset after the jump and by the one before it.
    before = midnight.replace(fold=1).astimezone(UTC)
    while start - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(start - before) // timedelta(seconds=2))
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            start = middle
    return start
