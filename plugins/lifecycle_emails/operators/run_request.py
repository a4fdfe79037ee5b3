"""What a DAG run asks for: which cohort, with the earlier ones or alone, for real or as a dry run.

Reads Airflow's context and nothing else; which cohorts are open is the ledger's to know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import cohort_date_of
from lifecycle_emails.errors import ConfigurationError

CLOCK_SKEW = timedelta(minutes=5)
"""How far a scheduler's clock may be ahead of a worker's before a logical date counts as in the future."""

LONGEST_AGO = timedelta(days=366)
"""How old a cohort named by hand may be: scheduled runs plan every day since a campaign's first cohort."""


@dataclass(frozen=True)
class RunRequest:
    """What one DAG run asks for.

    :param cohort_date: the cohort it is about: the users created on that day in the campaign's time zone.
    :param with_earlier: whether it also finishes the campaign's earlier cohorts (scheduled runs do).
    :param dry_run: show what would be sent, change nothing.
    :param max_lateness_days: this run's own deadline, in days after a cohort's scheduled run; never longer
        than the campaign's, which holds where this is None.
    :param run: names the run in the ledger's records, for people only.
    """

    cohort_date: date
    with_earlier: bool
    dry_run: bool
    run: str
    max_lateness_days: int | None = None


def read_run_request(context: Mapping[str, Any], campaign: Campaign, now: datetime) -> RunRequest:
    """Read what a run asks for from its task context.

    A manual run (also one triggered by another DAG or by an asset) names its cohort by the parameter
    ``cohort_date``, or else by its logical date. Scheduled and backfilled runs have a logical date each, and
    only that counts.

    :param now: the time now, aware.
    :raises ConfigurationError: the run names no cohort, names one twice, or names one whose turn has not
        come; or it asks for a longer deadline.
    """
    dag_run = context["dag_run"]
    run_type = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    params = context["params"]
    asked = params.get("cohort_date")
    automatic = run_type in {"scheduled", "backfill"}
    if asked is not None and automatic:
        raise ConfigurationError(
            f"The parameter cohort_date ({asked}) cannot be given to a {run_type} run: each of its days is a "
            "cohort of its own. Leave it out of the backfill's configuration, or trigger the DAG by hand."
        )
    cohort_date = _parse_date(asked) if asked is not None else _from_logical_date(context, campaign, now)
    latest = cohort_date_of(campaign, now)
    if cohort_date > latest:
        raise ConfigurationError(
            f"Cohort {cohort_date} of campaign {campaign.id} is not due before"
            f" {cohort_date + timedelta(days=campaign.offset_days)}: it is mailed {campaign.offset_days} days"
            f" after its users were created. Choose a cohort_date up to {latest}."
        )
    if asked is not None and cohort_date < latest - LONGEST_AGO:
        raise ConfigurationError(
            f"Cohort {cohort_date} of campaign {campaign.id} is more than {LONGEST_AGO.days} days old, far"
            " past any deadline. Is the year of cohort_date right?"
        )
    return RunRequest(
        cohort_date=cohort_date,
        with_earlier=run_type == "scheduled",
        dry_run=bool(params.get("dry_run", False)),
        run=run_name(context),
        max_lateness_days=_shorter_deadline(params.get("max_lateness_days"), campaign),
    )


def run_name(context: Mapping[str, Any]) -> str:
    """Name the run in the ledger's records, for people only."""
    dag_run = context["dag_run"]
    return f"{dag_run.dag_id} {dag_run.run_id}"


def _shorter_deadline(days: Any, campaign: Campaign) -> int | None:
    if days is None:
        return None
    if not isinstance(days, int) or isinstance(days, bool) or days < 1:
        raise ConfigurationError(
            f"The parameter max_lateness_days is {days!r}. Write a whole number of days, from 1 to"
            f" {campaign.max_lateness_days}, or leave it empty."
        )
    if days > campaign.max_lateness_days:
        raise ConfigurationError(
            f"The parameter max_lateness_days is {days}, and campaign {campaign.id} allows"
            f" {campaign.max_lateness_days}: a run can only shorten the deadline. To lengthen that of cohorts"
            f" already planned: lifecycle extend {campaign.id} --cohort-from ... --cohort-to ... --days ..."
        )
    return days


def _parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"The parameter cohort_date is {text!r}, which is not a date: write it as YYYY-MM-DD."
        ) from None


def _from_logical_date(context: Mapping[str, Any], campaign: Campaign, now: datetime) -> date:
    logical_date = context.get("logical_date")
    if logical_date is None:
        raise ConfigurationError(
            "This run has neither a logical date nor the parameter cohort_date, so it names no cohort."
            ' Trigger it again with one of them, for example --conf \'{"cohort_date": "2026-05-01"}\'.'
        )
    if logical_date > now + CLOCK_SKEW:
        raise ConfigurationError(
            f"The logical date of this run, {logical_date.isoformat()}, is in the future: its users cannot be"
            " known yet. Trigger it again with a logical date up to now, or with the parameter cohort_date."
        )
    return cohort_date_of(campaign, logical_date)
