"""Judge a cohort's users by the ledger: who may not be mailed, and why."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.operators.campaign_operator import (
    DRY_RUN_REMARK,
    EXTRACT_TASK_ID,
    CampaignOperator,
    extracted_cohorts,
    mistakes_fail_at_once,
    open_ledger,
    written_counts,
    written_dates,
)
from lifecycle_emails.operators.run_request import RunRequest

if TYPE_CHECKING:
    from lifecycle_emails.ledger.judging import Filtered


class LedgerFilterOperator(CampaignOperator):
    """Hold the users who are suppressed or past their deadline.

    Those already mailed are counted and not touched. Whoever was held for a reason that has gone is judged
    again. Running it again changes nothing else. In a dry run nothing is kept.

    Returns counts by reason.

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

    def execute(self, context: Context) -> dict[str, Any]:
        """Judge the run's cohorts by the ledger."""
        with mistakes_fail_at_once():
            campaign, request = self.read_run(context)
            cohorts = extracted_cohorts(context, self.cohorts_from, request.cohort_date)
            filtered = self._filter(campaign, request, cohorts)
        self.log.info(
            "%sCampaign %s, %s: %d users mailed already; held: %s.",
            DRY_RUN_REMARK if request.dry_run else "",
            campaign.id,
            written_dates(cohorts),
            filtered.already_sent,
            written_counts(filtered.held),
        )
        return filtered.as_dict()

    def _filter(self, campaign: Campaign, request: RunRequest, cohorts: Sequence[date]) -> "Filtered":
        from lifecycle_emails.ledger.judging import filter_ledger  # noqa: PLC0415  (psycopg comes with it)
        from lifecycle_emails.ledger.steps import record_step  # noqa: PLC0415

        if request.dry_run:
            would_be = self.plan_without_keeping(campaign, request, "filter").filtered
            assert would_be is not None  # noqa: S101  (asked for)
            return would_be
        with open_ledger(self.ledger_conn_id) as ledger:
            record_step(ledger, campaign.id, cohorts, "filter_ledger", request.run)
            return filter_ledger(ledger, campaign, cohorts, max_lateness_days=request.max_lateness_days)
