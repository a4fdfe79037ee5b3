"""Close a run's books: wait for outstanding answers, show what became of everybody, tell what is open."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, BaseSensorOperator, Context, PokeReturnValue, TriggerRule
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lifecycle_emails.cohort import nominal_tick
from lifecycle_emails.errors import LifecycleError
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.campaign_operator import (
    EXTRACT_TASK_ID,
    extracted_cohorts,
    failed_tasks,
    mistakes_fail_at_once,
    open_ledger,
    read_run,
)
from lifecycle_emails.throttle import load_throttle


class ReconcileOperator(BaseSensorOperator):
    """Wait for answers to messages under way, print the run's table, and fail if anything is open.

    Runs whatever became of the tasks before it. Fails, without retries, when one of them failed, users who
    could be mailed are left, a user of the audience has no row in the ledger, an alert is undelivered, or it
    cannot be known whether a message was accepted. Each is said in one line, with what to do; clearing the
    task when it is done makes the run green.

    Cohorts that have become complete (no planned, ready or sending row) become one event each of the asset
    ``lifecycle/<campaign>``, when the task succeeds: the partition key is the cohort date, and ``extra``
    holds their counts. Without such a cohort there is no event.

    Returns the counts of the table.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param cohorts_from: id of the ExtractCohortOperator's task, whose result names the cohorts to look at
    """

    template_fields: Sequence[str] = ("campaign_id", "include_dir", "ledger_conn_id")
    ui_color = "#e6edf7"

    def __init__(
        self,
        *,
        campaign_id: str,
        include_dir: str,
        ledger_conn_id: str = "lifecycle_ledger",
        cohorts_from: str = EXTRACT_TASK_ID,
        mode: str = "reschedule",
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float = timedelta(hours=3),
        trigger_rule: str = TriggerRule.ALL_DONE,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            mode=mode,
            poke_interval=poke_interval,
            timeout=timeout,
            trigger_rule=trigger_rule,
            **{"outlets": [completed_cohorts(campaign_id)], **kwargs},
        )
        self.campaign_id = campaign_id
        self.include_dir = include_dir
        self.ledger_conn_id = ledger_conn_id
        self.cohorts_from = cohorts_from

    def poke(self, context: Context) -> PokeReturnValue:
        """Look at the run's cohorts once."""
        with mistakes_fail_at_once():
            campaign, request = read_run(context, self.include_dir, self.campaign_id)
            throttled = load_throttle(Path(self.include_dir), campaign.smtp_conn_id) is not None
        failed = list(failed_tasks(context))
        if request.dry_run:
            if failed:
                raise AirflowFailException(_problems(self.campaign_id, failed))
            raise AirflowSkipException("A dry run keeps nothing, so there is nothing to reconcile.")
        cohorts = extracted_cohorts(context, self.cohorts_from, request.cohort_date)
        from lifecycle_emails.ledger.completion import newly_completed  # noqa: PLC0415
        from lifecycle_emails.ledger.reconciliation import reconcile  # noqa: PLC0415  (psycopg comes with it)

        try:
            with open_ledger(self.ledger_conn_id) as ledger:
                result = reconcile(ledger, campaign, cohorts, throttled=throttled)
        except LifecycleError as error:
            if failed:
                raise AirflowFailException(_problems(self.campaign_id, [*failed, str(error)])) from None
            raise
        if result.waiting_until is not None:
            self.log.info(
                "Answers to messages under way are outstanding, at the latest until %s.", result.waiting_until
            )
            return PokeReturnValue(is_done=False)
        for line in result.table.splitlines():
            self.log.info("%s", line)
        metrics.gauge_by_reason("lifecycle.held", result.held, campaign=campaign.id)
        problems = [*failed, *result.problems]
        if problems:
            raise AirflowFailException(_problems(self.campaign_id, problems))
        with open_ledger(self.ledger_conn_id) as ledger:
            completed = newly_completed(ledger, campaign.id, cohorts, request.run)
        if request.cohort_date in completed:
            late = datetime.now(UTC) - nominal_tick(campaign, request.cohort_date)
            metrics.gauge("lifecycle.cohort.lateness", late.total_seconds(), campaign=campaign.id)
        self._tell_who_follows(context, completed)
        return PokeReturnValue(is_done=True, xcom_value=result.counts)

    def _tell_who_follows(self, context: Context, completed: Mapping[date, Mapping[str, int]]) -> None:
        if not completed:
            self.outlets = []  # Airflow makes an event of every outlet of a task that succeeds
            return
        counts = {day.isoformat(): users for day, users in completed.items()}
        event = context["outlet_events"][completed_cohorts(self.campaign_id)]
        event.add_partitions(list(counts))
        event.extra = {
            "campaign": self.campaign_id,
            "cohorts": {day: {**users} for day, users in counts.items()},
        }
        self.log.info(
            "Complete: %s.",
            ", ".join(f"cohort {day} ({users['sent']} sent)" for day, users in counts.items()),
        )


def completed_cohorts(campaign_id: str) -> Asset:
    """Give the asset that has an event for each completed cohort of a campaign; its partitions are dates."""
    return Asset(name=f"lifecycle/{campaign_id}", uri=f"lifecycle://cohorts/{campaign_id}", group="lifecycle")


def _problems(campaign_id: str, problems: Sequence[str]) -> str:
    lines = "\n".join(f"- {problem}" for problem in problems)
    return f"Campaign {campaign_id} is not in order:\n{lines}"
