"""The dry run of a DAG run: everybody named, as a report and as CSV in an object store.

Carries the core's report to where Airflow's people look. No SQL, no SMTP.
"""

import re
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.daily_limit import load_daily_limits
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.frequency_cap import load_cap_rules
from lifecycle_emails.operators.campaign_operator import open_ledger
from lifecycle_emails.operators.connections import source_connector
from lifecycle_emails.operators.run_request import RunRequest

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from lifecycle_emails.dry_run_report import DryRunReport

# What imports psycopg or object stores is imported where it is used: every parse of a DAG file imports this
# module.
# ruff: noqa: PLC0415


def report_path(reports: str, campaign: Campaign, request: RunRequest) -> "ObjectStoragePath":
    """Where a run's report stands: a folder for each campaign, a file for each run."""
    from airflow.sdk import ObjectStoragePath

    name = re.sub(r"[^\w.+-]+", "_", request.run)
    return ObjectStoragePath(reports) / campaign.id / f"{name}.csv"


def name_everybody(
    campaign: Campaign,
    request: RunRequest,
    *,
    include_dir: Path,
    ledger_conn_id: str,
    path: "ObjectStoragePath | None",
) -> "DryRunReport":
    """Plan, judge and render without keeping anything; write a row per user to ``path``.

    :raises ConfigurationError: a file has a mistake, or ``path`` cannot be written.
    """
    from lifecycle_emails.audience import Audience
    from lifecycle_emails.dry_run_report import DryRunReport, dry_run_rows, write_csv
    from lifecycle_emails.freshness import Freshness
    from lifecycle_emails.ledger.judged_cohorts import RunToTry, judged_cohorts
    from lifecycle_emails.message import MessageTemplates

    asked = RunToTry(
        campaign,
        Audience.load(include_dir, campaign),
        load_cap_rules(include_dir, campaign.frequency_cap),
        request.cohort_date,
        with_earlier=request.with_earlier,
        daily_limits=load_daily_limits(include_dir, campaign),
        max_lateness_days=request.max_lateness_days,
        freshness=Freshness.load(include_dir, campaign),
    )
    templates = {campaign.id: MessageTemplates.load(include_dir, campaign)}
    connect_to_source = source_connector(campaign.source_conn_id)
    with (
        open_ledger(ledger_conn_id) as ledger,
        closing(connect_to_source()) as source,
        judged_cohorts(ledger, source, [asked]) as judged,
    ):
        report = DryRunReport.of(judged)
        rows = report.reading(dry_run_rows(judged, source, templates))
        if path is None:
            deque(rows, maxlen=0)
        else:
            with _written(path) as file:
                write_csv(rows, file)
    return report


@contextmanager
def _written(path: "ObjectStoragePath") -> Iterator[IO[str]]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"The report of the dry run cannot be written to {path}: {reason}."
            " Mend dry_run_reports of lifecycle_dag, or the rights there."
        ) from None
