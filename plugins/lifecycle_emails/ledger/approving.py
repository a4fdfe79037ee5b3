"""The volume breaker in the ledger: cohorts of unusual size are held back until somebody decides.

The step between filter and cap, and what people answer. Knows named queries and the breaker's judgement. Must
not know how a person is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from psycopg.types.json import Jsonb

from lifecycle_emails.campaign import Campaign, VolumeBreaker
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, planning_transaction
from lifecycle_emails.volume import (
    HISTORY,
    VolumeFigures,
    VolumeTrouble,
    VolumeVerdict,
    trouble_words,
    volume_figures,
    volume_trouble,
)

log = logging.getLogger(__name__)

NOBODY = "nobody"
"""Written as the name behind a refusal that came of no answer."""


@dataclass(frozen=True)
class AwaitingCohort:
    """A cohort that awaits approval: its ``size`` in users, and in ``words`` what is unusual about it."""

    cohort_date: date
    size: int
    words: str


@dataclass(frozen=True)
class Answered:
    """What came of an answer: cohorts asked about that are approved now, refused by it, or unchanged, why."""

    approved: tuple[date, ...]
    refused: tuple[date, ...]
    unchanged: tuple[str, ...]


def check_volume(
    ledger: LedgerConnection,
    campaign: Campaign,
    cohort_dates: Sequence[date],
    *,
    fresh_until: datetime | None = None,
    run: str,
) -> dict[date, VolumeVerdict]:
    """Look at the size of each of these cohorts, oldest first, and hold back what is out of bounds.

    A cohort that awaits approval gives the slots of its ready users back. An awaiting cohort whose figures
    have come right goes out by itself; a refused one only by a person. Of a cohort seen as usual before,
    only growth is looked at; of an approved one, only whether its latecomers alone are too many. With the
    breaker off nothing is held back any more but what was refused. ``fresh_until``: what the source said of
    itself. Cohorts past their deadline are left out.
    """
    verdicts = {}
    with planning_transaction(ledger):
        ledger.execute(query("lock_campaign"), {"campaign": campaign.id})
        for day in sorted(cohort_dates):
            verdict = _check(ledger, campaign, day, fresh_until, run)
            if verdict is not None:
                verdicts[day] = verdict
    return verdicts


def awaiting_cohorts(
    ledger: LedgerConnection, campaign_id: str, cohort_dates: Sequence[date]
) -> tuple[AwaitingCohort, ...]:
    """Those of these cohorts that await approval and could still be mailed."""
    arguments = {"campaign": campaign_id, "cohort_dates": list(cohort_dates)}
    return tuple(
        AwaitingCohort(*row) for row in ledger.execute(query("cohorts_awaiting_approval"), arguments)
    )


def count_awaiting_approval(ledger: LedgerConnection) -> list[tuple[str, int]]:
    """Each campaign of the ledger, and how many of its cohorts await approval before their deadline."""
    return ledger.execute(query("count_awaiting_approval")).fetchall()


def decide_volume(
    ledger: LedgerConnection,
    campaign_id: str,
    cohort_date: date,
    verdict: VolumeVerdict,
    actor: str,
    reason: str,
) -> None:
    """A person approves or refuses a cohort that awaits approval, or releases (approves) a refused one.

    The next run of the campaign sends what was approved, under cap, suppression and deadline. Raises
    LedgerError, and changes nothing: without name or reason, for an unknown cohort, and for one that is not
    held back or was decided so before.
    """
    with planning_transaction(ledger, actor=actor):
        ledger.execute(query("lock_campaign"), {"campaign": campaign_id})
        arguments = {"campaign": campaign_id, "cohort_date": cohort_date}
        row = ledger.execute(query("volume_verdict"), arguments).fetchone()
        if row is None:
            raise LedgerError(f"campaign {campaign_id} has no cohort {cohort_date}; nothing was changed")
        if verdict not in _DECISIONS.get(row[0], ()):
            raise LedgerError(
                f"cohort {cohort_date} of campaign {campaign_id} {_standing(row)}; nothing was changed"
            )
        _decide(ledger, campaign_id, cohort_date, verdict, actor, reason, by_a_person=True)


def release_cohort(
    ledger: LedgerConnection, campaign_id: str, cohort_date: date, actor: str, reason: str
) -> bool:
    """A person lets a refused cohort go after all. Returns whether it is past its deadline.

    Raises LedgerError as `decide_volume` does, and for a cohort that awaits approval, before its deadline or
    after: that is its approvers' to give.
    """
    arguments = {"campaign": campaign_id, "cohort_date": cohort_date}
    with planning_transaction(ledger, actor=actor):
        ledger.execute(query("lock_campaign"), arguments)
        row = ledger.execute(query("volume_verdict"), arguments).fetchone()
        if row is not None and row[0] == VolumeVerdict.AWAITING_APPROVAL:
            raise LedgerError(
                f"cohort {cohort_date} of campaign {campaign_id} awaits approval; nothing was changed. "
                "Approve or refuse it in Airflow, under required actions"
            )
        decide_volume(ledger, campaign_id, cohort_date, VolumeVerdict.APPROVED, actor, reason)
        return row is not None and bool(row[4])


def record_answer(
    ledger: LedgerConnection,
    campaign_id: str,
    asked: Sequence[tuple[date, int]],
    verdict: VolumeVerdict,
    *,
    actor: str | None,
    reason: str,
) -> Answered:
    """Write down what was answered about cohorts and the sizes that were shown.

    Safe to repeat: only what still awaits approval changes, and an approval only where no more users are in
    the cohort by now than were shown. ``actor``: who answered; None when nobody did, which can only refuse.
    """
    approved: list[date] = []
    refused: list[date] = []
    unchanged: list[str] = []
    with planning_transaction(ledger, actor=actor or NOBODY):
        ledger.execute(query("lock_campaign"), {"campaign": campaign_id})
        for day, size in asked:
            arguments = {"campaign": campaign_id, "cohort_date": day}
            row = ledger.execute(query("volume_verdict"), arguments).fetchone() or (None,)
            if row[0] == VolumeVerdict.AWAITING_APPROVAL:
                if verdict is VolumeVerdict.APPROVED and row[1] > size:
                    unchanged.append(f"cohort {day} has {row[1]} users by now, and {size} were shown")
                    continue
                _decide(
                    ledger, campaign_id, day, verdict, actor or NOBODY, reason, by_a_person=actor is not None
                )
                (approved if verdict is VolumeVerdict.APPROVED else refused).append(day)
                continue
            if row[0] == VolumeVerdict.APPROVED:
                approved.append(day)
            if row[0] != verdict:
                unchanged.append(f"cohort {day} {_standing(row)}")
    return Answered(tuple(approved), tuple(refused), tuple(unchanged))


_DECISIONS = {
    "awaiting_approval": (VolumeVerdict.APPROVED, VolumeVerdict.REFUSED),
    "refused": (VolumeVerdict.APPROVED,),
}
"""What may be decided, by the verdict that stands."""


def _check(
    ledger: LedgerConnection, campaign: Campaign, day: date, fresh_until: datetime | None, run: str
) -> VolumeVerdict | None:
    arguments: dict[str, Any] = {"campaign": campaign.id, "cohort_date": day, "history": HISTORY}
    row = ledger.execute(query("volume_of_cohort"), arguments).fetchone()
    if row is None:
        return None
    size, window_end, standing, judged_size, cohorts, median = row
    breaker = campaign.volume or VolumeBreaker()
    figures = volume_figures(breaker, size, cohorts=cohorts, median=median, fresh_until=fresh_until)
    trouble = None
    if campaign.volume is not None:
        trouble = _trouble(breaker, figures, window_end, standing, judged_size)
    if standing in (VolumeVerdict.APPROVED, VolumeVerdict.REFUSED) and trouble is None:
        return VolumeVerdict(standing)
    verdict = VolumeVerdict.WITHIN if trouble is None else VolumeVerdict.AWAITING_APPROVAL
    note = {
        "verdict": verdict,
        "size": max(size, judged_size or 0) if trouble is None else size,
        "figures": Jsonb(_kept(figures, trouble, run)),
    }
    ledger.execute(query("note_volume"), {**arguments, **note})
    if trouble is not None:
        ledger.execute(query("give_back_slots"), arguments)
        log.warning("%s, cohort %s awaits approval: %s", campaign.id, day, trouble_words(trouble, figures))
    return verdict


def _kept(figures: VolumeFigures, trouble: VolumeTrouble | None, run: str) -> dict[str, Any]:
    """The figures of a verdict as the cohort keeps them."""
    return {
        **asdict(figures),
        "fresh_until": figures.fresh_until and figures.fresh_until.isoformat(),
        "trouble": trouble,
        "words": trouble and trouble_words(trouble, figures),
        "run": run,
    }


def _trouble(
    breaker: VolumeBreaker,
    figures: VolumeFigures,
    window_end: datetime,
    standing: str | None,
    judged_size: int | None,
) -> VolumeTrouble | None:
    """What is wrong with a cohort whose verdict stands as it does."""
    if standing == VolumeVerdict.REFUSED:
        return None
    if standing == VolumeVerdict.APPROVED:
        latecomers = figures.size - (judged_size or 0)
        return VolumeTrouble.TOO_MANY if latecomers > figures.upper else None
    trouble = volume_trouble(breaker, figures, window_end)
    if standing == VolumeVerdict.WITHIN and trouble is not VolumeTrouble.TOO_MANY:
        return None  # users leave the audience of a cohort that is being mailed
    return trouble


def _decide(
    ledger: LedgerConnection,
    campaign_id: str,
    cohort_date: date,
    verdict: VolumeVerdict,
    actor: str,
    reason: str,
    *,
    by_a_person: bool,
) -> None:
    if not actor.strip() or not reason.strip():
        raise LedgerError("give a name and a reason; nothing was changed")
    arguments = {
        "campaign": campaign_id,
        "cohort_date": cohort_date,
        "verdict": verdict,
        "actor": actor.strip(),
        "reason": reason.strip(),
        "by_a_person": by_a_person,
    }
    ledger.execute(query("record_volume_decision"), arguments)
    ledger.execute(query("decide_volume"), arguments)


def _standing(row: Sequence[Any]) -> str:
    """How a cohort stands, for people: the row of ``volume_verdict``, or one without a verdict."""
    if row[0] in (VolumeVerdict.APPROVED, VolumeVerdict.REFUSED):
        return f"was {row[0]} by {row[2]} at {row[3]:%Y-%m-%d %H:%M %Z}"
    if row[0] == VolumeVerdict.AWAITING_APPROVAL:
        return "awaits approval: approve or refuse it"
    return "is not held back"
