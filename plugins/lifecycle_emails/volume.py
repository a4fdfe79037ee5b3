"""The volume breaker's judgement: whether a cohort is of a size that the last weeks had.

Pure arithmetic on figures that somebody else has read. Must not know databases or Airflow, nor what becomes
of a cohort that is of no usual size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lifecycle_emails.campaign import VolumeBreaker

HISTORY = timedelta(weeks=4)
"""How far before a cohort's date the cohorts lie that it is compared with."""

ENOUGH_HISTORY = 5
"""With fewer cohorts to compare with, ``without_history`` is the limit."""


class VolumeVerdict(StrEnum):
    """What the ledger keeps of a cohort's size."""

    WITHIN = "within"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    REFUSED = "refused"


class VolumeTrouble(StrEnum):
    """Why a cohort awaits approval."""

    TOO_MANY = "too_many"
    TOO_FEW = "too_few"
    NOT_FRESH = "not_fresh"


@dataclass(frozen=True)
class VolumeFigures:
    """A cohort's size and what it is compared with, in users.

    ``size``: users in its audience. ``median`` of ``cohorts`` earlier cohorts; None when there are none.
    ``lower`` and ``upper``: the sizes, both inclusive, that go out by themselves. ``fresh_until``: up to when
    the source's data are complete, where the campaign says how to ask.
    """

    size: int
    cohorts: int
    median: float | None
    lower: int
    upper: int
    fresh_until: datetime | None = None


def volume_figures(
    breaker: VolumeBreaker,
    size: int,
    *,
    cohorts: int,
    median: float | None,
    fresh_until: datetime | None = None,
) -> VolumeFigures:
    """Put bounds around the ``median`` of ``cohorts`` earlier cohorts, or take the limit without history.

    >>> figures = volume_figures(VolumeBreaker(factor=3, floor=100), 50, cohorts=20, median=1000.0)
    >>> figures.lower, figures.upper
    (334, 3000)
    """
    if median is None or cohorts < ENOUGH_HISTORY:
        return VolumeFigures(size, cohorts, median, 0, breaker.without_history, fresh_until)
    lower = min(-(-median // breaker.factor), median - breaker.floor)
    upper = max(median * breaker.factor, median + breaker.floor)
    return VolumeFigures(size, cohorts, median, max(0, int(lower)), int(upper), fresh_until)


def volume_trouble(
    breaker: VolumeBreaker, figures: VolumeFigures, window_end: datetime
) -> VolumeTrouble | None:
    """Say why the cohort that ends at ``window_end`` should await approval; None: it is as usual."""
    if figures.size > figures.upper:
        return VolumeTrouble.TOO_MANY
    if breaker.freshness is not None and (figures.fresh_until is None or figures.fresh_until < window_end):
        return VolumeTrouble.NOT_FRESH
    if figures.size < figures.lower:
        return VolumeTrouble.TOO_FEW
    return None


def trouble_words(trouble: VolumeTrouble, figures: VolumeFigures) -> str:
    """Say for people what is unusual about a cohort.

    >>> figures = volume_figures(VolumeBreaker(factor=3, floor=100), 50, cohorts=20, median=1000.0)
    >>> trouble_words(VolumeTrouble.TOO_FEW, figures)
    'too few: 50 users. The median of 20 cohorts of the 4 weeks before is 1000; 334 to 3000 go out unasked'
    """
    if trouble is VolumeTrouble.NOT_FRESH:
        complete = "not known" if figures.fresh_until is None else f"{figures.fresh_until:%Y-%m-%d %H:%M %Z}"
        return f"not fresh: {figures.size} users. The source's data are complete until: {complete}"
    what = "too many" if trouble is VolumeTrouble.TOO_MANY else "too few"
    weeks = HISTORY // timedelta(weeks=1)
    if figures.median is None or figures.cohorts < ENOUGH_HISTORY:
        compared = (
            f"The {weeks} weeks before have {figures.cohorts} cohorts, too few to compare with; up to "
            f"{figures.upper} go out unasked"
        )
    else:
        compared = (
            f"The median of {figures.cohorts} cohorts of the {weeks} weeks before is {figures.median:g}; "
            f"{figures.lower} to {figures.upper} go out unasked"
        )
    return f"{what}: {figures.size} users. {compared}"
