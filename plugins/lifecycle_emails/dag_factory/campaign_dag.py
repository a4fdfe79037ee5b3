"""The daily DAG of a campaign, out of its file.

Building it reads the campaign's file and nothing else: no database, no network. What the tasks do is in
``operators``; what they are good for is in the core.
"""

import inspect
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup

from lifecycle_emails.campaign import Campaign, VolumeBreaker, load_campaign
from lifecycle_emails.dag_docs import TASK_DOCS, campaign_doc
from lifecycle_emails.dag_factory.arguments import (
    POOL,
    RETRIES,
    SET_STEP_TIMEOUT,
    SHORT_TIMEOUT,
    calling_file,
    checked_callbacks,
    dag_arguments,
    found_include_dir,
)
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators import (
    AlertCallback,
    AlertOperator,
    ApproveVolumeOperator,
    ExtractCohortOperator,
    LedgerFilterOperator,
    RateLimitOperator,
    ReconcileOperator,
    RecordApprovalOperator,
    SendBatchOperator,
    VolumeCheckOperator,
)

SEND_TIMEOUT = timedelta(hours=2)


def lifecycle_dag(
    campaign_id: str,
    *,
    on_limit_exceeded: Sequence[AlertCallback] = (),
    dag_id: str | None = None,
    include_dir: str | Path | None = None,
    ledger_conn_id: str = "lifecycle_ledger",
    pool: str = POOL,
    dry_run_reports: str | None = None,
    **dag_overrides: Any,
) -> DAG:
    """Build the daily DAG of a campaign.

    :param campaign_id: the campaign's id: the name of its file in ``include/campaigns``, and of the DAG file.
    :param on_limit_exceeded: whom to tell when the frequency cap refuses users: Airflow notifiers, and
        functions of the task's context. In both, ``alert`` is the alert: ``alert.subject``, ``alert.text``,
        ``alert.html``, ``alert.id`` and what it is about.
    :param dag_id: a DAG id other than the campaign's; then the DAG file may have any name.
    :param include_dir: folder with ``campaigns/``, ``audiences/`` and ``templates/``, from the DAG file's
        folder; by default ``../include``.
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger.
    :param pool: Airflow pool of the sending tasks.
    :param dry_run_reports: where dry runs write a CSV file with a row for each user: an object storage path
        of a folder, such as ``s3://conn_id@bucket/dry-runs`` or ``file:///srv/dry-runs``.
    :param dag_overrides: further arguments for the DAG, such as ``start_date``. ``tags`` and ``default_args``
        are added to the campaign's own; the schedule is the campaign file's alone.
    :raises ConfigurationError: the campaign file has a mistake, the DAG file's name differs from the
        campaign's id, or an argument cannot be what it is. Only this DAG is missing then.
    """
    dag_file, notes = calling_file(inspect.currentframe())
    if dag_id is None and dag_file.stem != campaign_id:
        raise ConfigurationError(
            f"The DAG file {dag_file.name} builds the DAG of campaign {campaign_id!r}. Name the file"
            f" {campaign_id}.py, or pass dag_id=... for a DAG of another name."
        )
    include = found_include_dir(dag_file, include_dir)
    campaign = load_campaign(include, campaign_id)
    callbacks = checked_callbacks("on_limit_exceeded", on_limit_exceeded)
    if not callbacks:
        warnings.warn(
            f"Campaign {campaign_id} has no on_limit_exceeded callbacks: when users exceed the frequency cap,"
            " nobody is told. Pass lifecycle_dag(..., on_limit_exceeded=[SmtpNotifier(...)]).",
            stacklevel=2,
        )
    dag = DAG(
        dag_id or campaign_id,
        **dag_arguments(
            dag_overrides,
            description=campaign.description
            or f"Mails users {campaign.offset_days} days after they were created.",
            schedule=CronTriggerTimetable(campaign.schedule, timezone=campaign.timezone),
            doc_md=campaign_doc(campaign, notes),
            tags=["lifecycle", *campaign.tags],
            default_args={"owner": campaign.owner, **RETRIES},
            params=_params(),
        ),
    )
    dag.fileloc = str(dag_file)
    with dag:
        _daily_tasks(campaign, str(include), ledger_conn_id, callbacks, pool, dry_run_reports)
    return dag


def _daily_tasks(
    campaign: Campaign,
    include_dir: str,
    ledger_conn_id: str,
    callbacks: Sequence[AlertCallback],
    pool: str,
    dry_run_reports: str | None,
) -> None:
    of_campaign: dict[str, Any] = {
        "campaign_id": campaign.id,
        "include_dir": include_dir,
        "ledger_conn_id": ledger_conn_id,
    }
    extract = ExtractCohortOperator(
        task_id="extract_cohort",
        execution_timeout=SET_STEP_TIMEOUT,
        doc_md=TASK_DOCS["extract_cohort"],
        **of_campaign,
    )
    filtered = LedgerFilterOperator(
        task_id="filter_ledger",
        execution_timeout=SET_STEP_TIMEOUT,
        doc_md=TASK_DOCS["filter_ledger"],
        **of_campaign,
    )
    checked = VolumeCheckOperator(
        task_id="check_volume",
        execution_timeout=SHORT_TIMEOUT,
        doc_md=TASK_DOCS["check_volume"],
        **of_campaign,
    )
    sending = _sending_tasks(
        ("limit_rate", "send_batch", "alert"),
        of_campaign,
        callbacks,
        pool,
        dry_run_reports=dry_run_reports,
    )
    with TaskGroup("approval", prefix_group_id=False, tooltip="Only for cohorts of unusual size"):
        asked = ApproveVolumeOperator(
            task_id="approve_volume",
            breaker=campaign.volume or VolumeBreaker(),
            callbacks=callbacks,
            execution_timeout=SHORT_TIMEOUT,
            doc_md=TASK_DOCS["approve_volume"],
            **of_campaign,
        )
        recorded = RecordApprovalOperator(
            task_id="record_approval",
            execution_timeout=SHORT_TIMEOUT,
            doc_md=TASK_DOCS["record_approval"],
            **of_campaign,
        )
        approved = _sending_tasks(
            ("limit_rate_approved", "send_approved", "alert_approved"),
            of_campaign,
            callbacks,
            pool,
            cohorts_from="record_approval",
        )
    reconcile = ReconcileOperator(
        task_id="reconcile",
        execution_timeout=SHORT_TIMEOUT,
        doc_md=TASK_DOCS["reconcile"],
        **of_campaign,
    )
    extract >> filtered >> checked
    for before, (limited, send, alert) in ((checked, sending), (recorded, approved)):
        before >> limited >> [send, alert] >> reconcile
    checked >> asked >> recorded


def _sending_tasks(
    task_ids: tuple[str, str, str],
    of_campaign: dict[str, Any],
    callbacks: Sequence[AlertCallback],
    pool: str,
    **of_limit: Any,
) -> tuple[Any, Any, Any]:
    """Give the tasks that reserve slots, send, and tell the team: of the run, or of what was approved."""
    limit_id, send_id, alert_id = task_ids
    limited = RateLimitOperator(
        task_id=limit_id,
        callbacks=callbacks,
        execution_timeout=SET_STEP_TIMEOUT,
        doc_md=TASK_DOCS[limit_id],
        **of_campaign,
        **of_limit,
    )
    send = SendBatchOperator.partial(
        task_id=send_id,
        pool=pool,
        execution_timeout=SEND_TIMEOUT,
        map_index_template="{{ task.group['label'] }}",
        doc_md=TASK_DOCS[send_id],
        **of_campaign,
    ).expand(group=limited.output)
    alert = AlertOperator(
        task_id=alert_id,
        campaign_id=of_campaign["campaign_id"],
        callbacks=callbacks,
        ledger_conn_id=of_campaign["ledger_conn_id"],
        execution_timeout=SHORT_TIMEOUT,
        doc_md=TASK_DOCS[alert_id],
    )
    return limited, send, alert


def _params() -> dict[str, Param]:
    return {
        "dry_run": Param(
            False,
            type=["null", "boolean"],  # without "null" the form calls it required
            title="Dry run",
            description=(
                "Name everybody who would be mailed, capped or held, in the log of limit_rate, and find mails"
                " that cannot be rendered. Nothing is sent, reserved or kept."
            ),
        ),
        "cohort_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Cohort date",
            description=(
                "Mail the users created on this day, in the campaign's time zone. For runs triggered by hand;"
                " left empty, the run's logical date decides. Not for backfills, whose dates are logical"
                " dates."
            ),
        ),
        "max_lateness_days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Deadline in days",
            description=(
                "Mail nobody in this run or backfill more than so many days after the cohort's scheduled run:"
                " they are held as stale, until a run without this number. It can only shorten what the"
                " campaign says; lifecycle extend lengthens."
            ),
        ),
    }
