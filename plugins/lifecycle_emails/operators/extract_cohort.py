"""Plan a cohort: every user of its day gets a row in the ledger."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.operators.campaign_operator import (
    DRY_RUN_REMARK,
    EXTRACT_TASK_ID,
    CampaignOperator,
    mistakes_fail_at_once,
    open_ledger,
    written_dates,
)
from lifecycle_emails.operators.connections import source_connector
from lifecycle_emails.operators.run_request import RunRequest

if TYPE_CHECKING:
    from lifecycle_emails.ledger.planning import Extracted


class ExtractCohortOperator(CampaignOperator):
    """Copy the ids of a cohort's users from the source into the ledger; ids only, nobody's address.

    A scheduled run also takes the campaign's earlier cohorts that are still open or were never planned.
    Running it again finds latecomers and changes nothing else. In a dry run nothing is kept.

    Returns counts and cohort dates.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = CampaignOperator.template_fields
    ui_color = "#e8f3ec"

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan the run's cohorts."""
        with mistakes_fail_at_once():
            campaign, request = self.read_run(context)
            if request.dry_run:
                extracted = self.plan_without_keeping(campaign, request, "extract").extracted
            else:
                extracted = self._extract(campaign, request)
        self.log.info(
            "%sCampaign %s, %s: %d users found, %d of them new, %d moved here from another cohort, %d known"
            " already.",
            DRY_RUN_REMARK if request.dry_run else "",
            campaign.id,
            written_dates(extracted.cohort_dates),
            extracted.found,
            extracted.new,
            extracted.moved,
            extracted.known,
        )
        return extracted.as_dict()

    def _extract(self, campaign: Campaign, request: RunRequest) -> "Extracted":
        from lifecycle_emails.audience import Audience  # noqa: PLC0415  (psycopg comes with these)
        from lifecycle_emails.ledger.planning import extract_cohort  # noqa: PLC0415
        from lifecycle_emails.ledger.steps import ledger_time, record_step  # noqa: PLC0415

        audience = Audience.load(Path(self.include_dir), campaign)
        connect_to_source = source_connector(campaign.source_conn_id)
        with open_ledger(self.ledger_conn_id) as ledger, closing(connect_to_source()) as source:
            started_at = ledger_time(ledger)
            extracted = extract_cohort(
                ledger, source, campaign, audience, request.cohort_date, with_earlier=request.with_earlier
            )
            record_step(
                ledger,
                campaign.id,
                extracted.cohort_dates,
                EXTRACT_TASK_ID,
                request.run,
                started_at=started_at,
            )
            return extracted
