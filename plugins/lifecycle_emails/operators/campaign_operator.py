"""What the operators of a campaign's daily run have in common: its files, its run, its ledger.

Nothing here knows SQL or SMTP, and nothing but Airflow's public interface is used.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators.connections import ledger_connector, source_connector
from lifecycle_emails.operators.run_request import RunRequest, read_run_request

if TYPE_CHECKING:
    from lifecycle_emails.ledger.dry_run import DryRun
    from lifecycle_emails.ledger.session import LedgerConnection

# What imports psycopg is imported where it is used: every parse of a DAG file imports this module.
# ruff: noqa: PLC0415

EXTRACT_TASK_ID = "extract_cohort"
DRY_RUN_REMARK = "Dry run, nothing is kept. "
DRY_RUN_BEGINS = "This is a dry run: what the next lines tell is tried and taken back, nothing is kept."
"""Logged first: the planning steps log what they do as in any run."""


class CampaignOperator(BaseOperator):
    """Base of the operators that work for one campaign.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "include_dir", "ledger_conn_id")

    def __init__(
        self,
        *,
        campaign_id: str,
        include_dir: str,
        ledger_conn_id: str = "lifecycle_ledger",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.include_dir = include_dir
        self.ledger_conn_id = ledger_conn_id

    def read_run(self, context: Context) -> tuple[Campaign, RunRequest]:
        """Load the campaign, and read what this run asks of it."""
        return read_run(context, self.include_dir, self.campaign_id)

    def plan_without_keeping(
        self, campaign: Campaign, request: RunRequest, upto: Literal["extract", "filter"]
    ) -> "DryRun":
        """Do the planning steps up to ``upto``, see what comes of them, and keep nothing: a dry run."""
        from lifecycle_emails.audience import Audience
        from lifecycle_emails.ledger.dry_run import dry_run

        self.log.info(DRY_RUN_BEGINS)
        include_dir = Path(self.include_dir)
        audience = Audience.load(include_dir, campaign)
        connect_to_source = source_connector(campaign.source_conn_id)
        with open_ledger(self.ledger_conn_id) as ledger, closing(connect_to_source()) as source:
            return dry_run(
                ledger,
                source,
                campaign,
                audience,
                request.cohort_date,
                with_earlier=request.with_earlier,
                upto=upto,
                max_lateness_days=request.max_lateness_days,
            )


def read_run(context: Context, include_dir: str, campaign_id: str) -> tuple[Campaign, RunRequest]:
    """Load a campaign, and read what a run asks of it."""
    campaign = load_campaign(Path(include_dir), campaign_id)
    return campaign, read_run_request(context, campaign, datetime.now(UTC))


@contextmanager
def open_ledger(conn_id: str) -> Iterator["LedgerConnection"]:
    """Open the ledger for the length of a with block.

    :raises ConfigurationError: Airflow has no such connection.
    :raises LedgerError: the ledger is out of reach or not migrated.
    """
    from lifecycle_emails.ledger.session import ledger_session

    with ledger_session(ledger_connector(conn_id)) as ledger:
        yield ledger


@contextmanager
def mistakes_fail_at_once() -> Iterator[None]:
    """Let a mistake in a file or a run's parameters fail the task without retries: people must mend it."""
    try:
        yield
    except ConfigurationError as mistake:
        raise AirflowFailException(str(mistake)) from None


def extracted_cohorts(context: Context, task_id: str, own: date) -> tuple[date, ...]:
    """Cohorts that the run's extract worked on; the run's own where the extract has left none."""
    extracted = context["ti"].xcom_pull(task_ids=task_id)
    if not extracted:
        return (own,)
    return tuple(date.fromisoformat(text) for text in extracted["cohort_dates"])


def failed_tasks(context: Context) -> Iterator[str]:
    """Say of each failed task of the run what to do. Mapped tasks are counted under their common name."""
    ti = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    # Airflow names mapped tasks by their map index: send_batch_0, send_batch_1
    failed = Counter(
        (re.sub(r"_\d+$", "", task), state)
        for task, state in states.items()
        if state in {"failed", "upstream_failed"}
    )
    for (task, state), count in sorted(failed.items()):
        which = task if count == 1 else f"{task} ({count} mapped tasks)"
        if state == "failed":
            yield f"{which} failed: the log says why. Mend that, then clear it with its downstream tasks."
        else:
            yield f"{which} did not run, since a task before it failed."


def written_dates(dates: Sequence[date]) -> str:
    """Write cohort dates for a log line, the last of them (the run's own) first."""
    own, *earlier = reversed(dates)
    if not earlier:
        return f"cohort {own}"
    return f"cohort {own} and the earlier {', '.join(map(str, reversed(earlier)))}"


def written_counts(counts: dict[str, int]) -> str:
    """Write counts by name for a log line: ``3 suppressed, 1 stale``, or ``none``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count) or "none"
