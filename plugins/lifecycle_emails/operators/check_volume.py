"""Look at the sizes of a run's cohorts, and hold back what is out of bounds."""

from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import BaseXCom, Context, SkipMixin

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.operators.approve_volume import ApproveVolumeOperator
from lifecycle_emails.operators.campaign_operator import (
    EXTRACT_TASK_ID,
    CampaignOperator,
    extracted_cohorts,
    mistakes_fail_at_once,
    open_ledger,
    written_dates,
)
from lifecycle_emails.operators.connections import source_connector
from lifecycle_emails.operators.run_request import RunRequest
from lifecycle_emails.volume import VolumeVerdict

# What imports psycopg is imported where it is used: every parse of a DAG file imports this module.
# ruff: noqa: PLC0415


class VolumeCheckOperator(CampaignOperator, SkipMixin):
    """Compare the size of each cohort with the campaign's cohorts of the last four weeks.

    A cohort far outside them, or of a source that is not fresh, awaits approval: no run sends it, and it
    holds no slots of the frequency cap. The run's other cohorts go on. Running it again changes nothing that
    a person has decided. In a dry run it does nothing: limit_rate looks.

    With nothing to ask, the ApproveVolumeOperator behind it is skipped at once: it takes no worker. Cleared
    by itself it runs, and looks into the ledger (hence no ``inherits_from_skipmixin``, by which Airflow would
    skip it again for what this task has seen).

    Returns the verdict of each cohort by date.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param cohorts_from: id of the ExtractCohortOperator's task, whose result names the cohorts to work on
    """

    template_fields: Sequence[str] = CampaignOperator.template_fields
    ui_color = "#e8f3ec"

    def __init__(self, *, cohorts_from: str = EXTRACT_TASK_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cohorts_from = cohorts_from

    def execute(self, context: Context) -> dict[str, str]:
        """Look at the run's cohorts."""
        verdicts = self._verdicts(context)
        if VolumeVerdict.AWAITING_APPROVAL not in verdicts.values():
            # skipping ends this task, so Airflow would not keep its result
            context["ti"].xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=verdicts)
            asking = [task for task in self.downstream_list if isinstance(task, ApproveVolumeOperator)]
            self.skip(context["ti"], asking)
        return verdicts

    def _verdicts(self, context: Context) -> dict[str, str]:
        with mistakes_fail_at_once():
            campaign, request = self.read_run(context)
            if request.dry_run:
                self.log.info("Dry run: nobody is asked; limit_rate says which cohorts are of unusual size.")
                return {}
            cohorts = extracted_cohorts(context, self.cohorts_from, request.cohort_date)
            verdicts = self._check(campaign, request, cohorts)
        self.log.info(
            "Campaign %s, %s: %s.",
            campaign.id,
            written_dates(cohorts),
            ", ".join(f"{day} {verdict}" for day, verdict in verdicts.items()) or "all past their deadline",
        )
        return verdicts

    def _check(self, campaign: Campaign, request: RunRequest, cohorts: Sequence[date]) -> dict[str, str]:
        from lifecycle_emails.ledger.approving import check_volume

        fresh_until = self._fresh_until(campaign)
        with open_ledger(self.ledger_conn_id) as ledger:
            verdicts = check_volume(ledger, campaign, cohorts, fresh_until=fresh_until, run=request.run)
        return {day.isoformat(): str(verdict) for day, verdict in verdicts.items()}

    def _fresh_until(self, campaign: Campaign) -> datetime | None:
        from lifecycle_emails.freshness import Freshness

        freshness = Freshness.load(Path(self.include_dir), campaign)
        if freshness is None:
            return None
        with closing(source_connector(campaign.source_conn_id)()) as source:
            return freshness.fresh_until(source)
