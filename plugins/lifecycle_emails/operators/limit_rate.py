"""Reserve a slot of the frequency cap for every user who may be mailed, and divide them into mapped tasks."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context, conf
from airflow.sdk.exceptions import AirflowSkipException

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.daily_limit import load_daily_limits
from lifecycle_emails.frequency_cap import load_cap_rules
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.alert_callbacks import AlertCallback, callback_keys
from lifecycle_emails.operators.campaign_operator import (
    DRY_RUN_BEGINS,
    DRY_RUN_REMARK,
    EXTRACT_TASK_ID,
    CampaignOperator,
    extracted_cohorts,
    mistakes_fail_at_once,
    open_ledger,
    written_dates,
)
from lifecycle_emails.operators.dry_run_link import DryRunLink
from lifecycle_emails.operators.named_dry_run import name_everybody, report_path
from lifecycle_emails.operators.run_request import RunRequest

if TYPE_CHECKING:
    from lifecycle_emails.ledger.batches import Group
    from lifecycle_emails.ledger.judging import Limited


class RateLimitOperator(CampaignOperator):
    """Reserve each user's slot of the frequency cap, or hold the user as ``capped`` and record an alert.

    Exact across campaigns and concurrent runs. The alert is recorded in the same transaction; the
    AlertOperator delivers it, so mail never waits for a callback. Cohorts that await approval of their size,
    or were refused it, are left as they are. In a dry run nothing is kept.

    Returns the groups of batches to send, one for each mapped SendBatchOperator: every group with ready
    users, whichever run made them ready. A dry run returns none. The counts are in the XCom ``counts``, and
    where a dry run's report stands in ``dry_run_report``; the task's page has a link to it.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param callbacks: what the AlertOperator will call; recorded with each alert as its recipients
    :param cohorts_from: id of the task whose result names the cohorts to work on: ExtractCohortOperator's, or
        RecordApprovalOperator's. Ends as skipped when it names none.
    :param dry_run_reports: object storage path of a folder, such as ``s3://conn_id@bucket/dry-runs``: a dry
        run writes a CSV file there, with a row for each user (templated)
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "dry_run_reports")
    operator_extra_links = (DryRunLink(),)
    ui_color = "#e8f3ec"

    def __init__(
        self,
        *,
        callbacks: Sequence[AlertCallback] = (),
        cohorts_from: str = EXTRACT_TASK_ID,
        dry_run_reports: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.callbacks = callbacks
        self.cohorts_from = cohorts_from
        self.dry_run_reports = dry_run_reports
        self.dry_run_report: str | None = None

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Reserve slots in the run's cohorts."""
        with mistakes_fail_at_once():
            campaign, request = self.read_run(context)
            cohorts = extracted_cohorts(context, self.cohorts_from, request.cohort_date)
            if not cohorts:
                raise AirflowSkipException("There is no cohort to work on.")
            if request.dry_run:
                return self._name_everybody(campaign, request, context)
            limited = self._limit(campaign, request, cohorts)
            groups = [_for_xcom(group) for group in limited.groups]
        self.log.info(
            "Campaign %s, %s: %d users are ready, for %d tasks to mail; %d held by the frequency cap, %d of"
            " them newly%s; %d held by the daily limit.",
            campaign.id,
            written_dates(cohorts),
            limited.ready,
            len(groups),
            limited.capped,
            limited.newly_refused,
            f" (alert {limited.alert_id})" if limited.alert_id else "",
            limited.over_daily_limit,
        )
        metrics.count("lifecycle.capped", limited.newly_refused, campaign=campaign.id)
        counts = {name: value for name, value in limited.as_dict().items() if name != "groups"}
        context["ti"].xcom_push(key="counts", value=counts)
        return groups

    def _limit(self, campaign: Campaign, request: RunRequest, cohorts: Sequence[date]) -> "Limited":
        from lifecycle_emails.ledger.judging import limit_rate  # noqa: PLC0415  (psycopg comes with it)
        from lifecycle_emails.ledger.steps import last_step, record_step  # noqa: PLC0415

        rules = load_cap_rules(Path(self.include_dir), campaign.frequency_cap)
        with open_ledger(self.ledger_conn_id) as ledger:
            earlier = last_step(ledger, campaign.id, request.cohort_date, "limit_rate")
            record_step(ledger, campaign.id, cohorts, "limit_rate", request.run)
            limited = limit_rate(
                ledger,
                campaign,
                rules,
                cohorts,
                callbacks=callback_keys(self.callbacks),
                max_groups=conf.getint("core", "max_map_length"),
                run=request.run,
                daily_limits=load_daily_limits(Path(self.include_dir), campaign),
                max_lateness_days=request.max_lateness_days,
            )
        if earlier is not None:
            self.log.info(
                "This rerun will send %d: cohort %s was judged before, by run %s at %s. Users held then may"
                " be allowed now.",
                limited.ready,
                request.cohort_date,
                *earlier,
            )
        return limited

    def _name_everybody(
        self, campaign: Campaign, request: RunRequest, context: Context
    ) -> list[dict[str, Any]]:
        self.log.info(DRY_RUN_BEGINS)
        reports = self.dry_run_reports
        path = None if reports is None else report_path(reports, campaign, request)
        report = name_everybody(
            campaign,
            request,
            include_dir=Path(self.include_dir),
            ledger_conn_id=self.ledger_conn_id,
            path=path,
        )
        self.log.info(
            "%sCampaign %s: %d users would be mailed.\n%s",
            DRY_RUN_REMARK,
            campaign.id,
            report.total["would_be_sent"],
            "\n".join(report.lines()),
        )
        where = path or "nowhere; lifecycle_dag(..., dry_run_reports=...) names an object store for it"
        self.log.info("A row for each user: %s", where)
        context["ti"].xcom_push(key="counts", value=report.as_dict())
        if path is not None:
            self.dry_run_report = str(path)
            context["ti"].xcom_push(key="dry_run_report", value=self.dry_run_report)
        return []


def _for_xcom(group: "Group") -> dict[str, Any]:
    """Give a group as XCom takes it, with the name that its mapped task has in the UI."""
    return {**group.as_dict(), "label": group.label}
