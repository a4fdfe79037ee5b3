"""DAGs out of campaign files: one daily DAG for each campaign, and the maintenance DAG.

A DAG file calls one function of this module. Building a DAG reads the campaign's file and nothing else: no
database, no network. What the tasks do is in ``operators``; what they are good for is in the core.
"""

import inspect
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable, Param

from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.dag_docs import TASK_DOCS, campaign_doc, maintenance_doc
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators import (
    AlertCallback,
    AlertOperator,
    ExtractCohortOperator,
    LedgerFilterOperator,
    MaintainOperator,
    MaintenanceAlertOperator,
    ProbeProvidersOperator,
    RateLimitOperator,
    ReconcileOperator,
    SendBatchOperator,
)

if TYPE_CHECKING:
    from lifecycle_emails.ledger.evidence import EvidenceSource

POOL = "lifecycle_emails"
"""Airflow pool of the tasks that talk to mail servers; its slots bound how many run at once."""

MAINTENANCE_RETRIES = 1
"""Maintenance runs again in a few minutes anyway."""

MAINTENANCE_RUNS = 4
"""How many rounds may be open at once: a probe that waits for its answer holds up no alert."""

RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
}
SET_STEP_TIMEOUT = timedelta(hours=2)
SEND_TIMEOUT = timedelta(hours=2)
PROBE_TIMEOUT = timedelta(minutes=30)
SHORT_TIMEOUT = timedelta(minutes=10)


def lifecycle_dag(
    campaign_id: str,
    *,
    on_limit_exceeded: Sequence[AlertCallback] = (),
    dag_id: str | None = None,
    include_dir: str | Path | None = None,
    ledger_conn_id: str = "lifecycle_ledger",
    pool: str = POOL,
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
    :param dag_overrides: further arguments for the DAG, such as ``start_date``. ``tags`` and ``default_args``
        are added to the campaign's own; the schedule is the campaign file's alone.
    :raises ConfigurationError: the campaign file has a mistake, the DAG file's name differs from the
        campaign's id, or an argument cannot be what it is. Only this DAG is missing then.
    """
    dag_file, notes = _caller(inspect.currentframe())
    if dag_id is None and dag_file.stem != campaign_id:
        raise ConfigurationError(
            f"The DAG file {dag_file.name} builds the DAG of campaign {campaign_id!r}. Name the file"
            f" {campaign_id}.py, or pass dag_id=... for a DAG of another name."
        )
    include = _include_dir(dag_file, include_dir)
    campaign = load_campaign(include, campaign_id)
    callbacks = _checked_callbacks("on_limit_exceeded", on_limit_exceeded)
    if not callbacks:
        warnings.warn(
            f"Campaign {campaign_id} has no on_limit_exceeded callbacks: when users exceed the frequency cap,"
            " nobody is told. Pass lifecycle_dag(..., on_limit_exceeded=[SmtpNotifier(...)]).",
            stacklevel=2,
        )
    dag = DAG(
        dag_id or campaign_id,
        **_dag_arguments(
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
        _daily_tasks(campaign, str(include), ledger_conn_id, callbacks, pool)
    return dag


def lifecycle_maintenance_dag(
    *,
    on_alert: Sequence[AlertCallback] = (),
    evidence: Sequence["EvidenceSource"] = (),
    schedule: str = "*/5 * * * *",
    dag_id: str = "lifecycle_maintenance",
    include_dir: str | Path | None = None,
    ledger_conn_id: str = "lifecycle_ledger",
    pool: str = POOL,
    owner: str = "lifecycle",
    **dag_overrides: Any,
) -> DAG:
    """Build the DAG that looks after the ledger of all campaigns. One Airflow has it once.

    :param on_alert: whom to tell of mails in doubt, missing cohorts, a stopped mail server, and of alerts
        that a campaign's own callbacks did not take; as ``on_limit_exceeded`` of `lifecycle_dag`.
    :param evidence: who knows what became of mails in doubt; what they prove is settled in every round. For
        example ``PostfixLog(["/var/log/mail.log.1", "/var/log/mail.log"])`` of
        ``lifecycle_emails.delivery.postfix_log``, with files that the workers can read.
    :param schedule: cron expression, in UTC. A mail in doubt is told of at the latest one round after the
        answer to it was due: that is 10 s, the connection's ``dot_timeout`` and 60 s after its dot.
    :param include_dir: as for `lifecycle_dag`.
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger.
    :param pool: Airflow pool of the task that tries stopped mail servers.
    :param dag_overrides: further arguments for the DAG.
    :raises ConfigurationError: an argument cannot be what it is.
    """
    dag_file, notes = _caller(inspect.currentframe())
    callbacks = _checked_callbacks("on_alert", on_alert)
    if not callbacks:
        warnings.warn(
            "The maintenance DAG has no on_alert callbacks: nobody is told of mails in doubt, missing cohorts"
            " or a stopped mail server. Pass lifecycle_maintenance_dag(on_alert=[SmtpNotifier(...)]).",
            stacklevel=2,
        )
    dag = DAG(
        dag_id,
        **_dag_arguments(
            dag_overrides,
            description="Sweeps the sends ledger and delivers alerts.",
            schedule=CronTriggerTimetable(schedule, timezone="UTC"),
            doc_md=maintenance_doc(notes),
            tags=["lifecycle"],
            default_args={"owner": owner, **RETRIES, "retries": MAINTENANCE_RETRIES},
            params={},
            max_active_runs=MAINTENANCE_RUNS,
        ),
    )
    dag.fileloc = str(dag_file)
    include = str(_include_dir(dag_file, include_dir))
    with dag:
        maintain = MaintainOperator(
            task_id="maintain",
            include_dir=include,
            evidence=evidence,
            ledger_conn_id=ledger_conn_id,
            execution_timeout=SET_STEP_TIMEOUT,
            max_active_tis_per_dag=1,
            doc_md=TASK_DOCS["maintain"],
        )
        ProbeProvidersOperator(  # nobody waits for it: a mail server may take its ten minutes to answer
            task_id="probe_providers",
            include_dir=include,
            ledger_conn_id=ledger_conn_id,
            pool=pool,
            execution_timeout=PROBE_TIMEOUT,
            max_active_tis_per_dag=1,
            doc_md=TASK_DOCS["probe_providers"],
        )
        deliver = MaintenanceAlertOperator(
            task_id="deliver_alerts",
            callbacks=callbacks,
            ledger_conn_id=ledger_conn_id,
            execution_timeout=SHORT_TIMEOUT,
            max_active_tis_per_dag=1,
            doc_md=TASK_DOCS["deliver_alerts"],
        )
        maintain >> deliver
    return dag


def _daily_tasks(
    campaign: Campaign,
    include_dir: str,
    ledger_conn_id: str,
    callbacks: Sequence[AlertCallback],
    pool: str,
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
    limited = RateLimitOperator(
        task_id="limit_rate",
        callbacks=callbacks,
        execution_timeout=SET_STEP_TIMEOUT,
        doc_md=TASK_DOCS["limit_rate"],
        **of_campaign,
    )
    send = SendBatchOperator.partial(
        task_id="send_batch",
        pool=pool,
        execution_timeout=SEND_TIMEOUT,
        map_index_template="{{ task.group['label'] }}",
        doc_md=TASK_DOCS["send_batch"],
        **of_campaign,
    ).expand(group=limited.output)
    alert = AlertOperator(
        task_id="alert",
        campaign_id=campaign.id,
        callbacks=callbacks,
        ledger_conn_id=ledger_conn_id,
        execution_timeout=SHORT_TIMEOUT,
        doc_md=TASK_DOCS["alert"],
    )
    reconcile = ReconcileOperator(
        task_id="reconcile",
        execution_timeout=SHORT_TIMEOUT,
        doc_md=TASK_DOCS["reconcile"],
        **of_campaign,
    )
    extract >> filtered >> limited >> [send, alert] >> reconcile


def _params() -> dict[str, Param]:
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Show how many would be mailed, capped and held. Nothing is sent, reserved or kept.",
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
    }


def _dag_arguments(
    overrides: dict[str, Any], *, tags: list[str], default_args: dict[str, Any], **arguments: Any
) -> dict[str, Any]:
    """Merge what the factory says with what the DAG file says."""
    overrides = dict(overrides)
    if "schedule" in overrides:
        raise ConfigurationError(
            "The schedule cannot be set in the DAG file: deadlines are computed from the one in the"
            " campaign's file. Write it there."
        )
    return {
        "catchup": False,
        "max_active_runs": 1,
        # a clear takes the newest version of a DAG bundle: a mended template goes out, not the old one again
        "rerun_with_latest_version": True,
        **arguments,
        "tags": [*tags, *overrides.pop("tags", ())],
        "default_args": {**default_args, **overrides.pop("default_args", {})},
        **overrides,
    }


def _checked_callbacks(name: str, callbacks: Sequence[AlertCallback]) -> tuple[AlertCallback, ...]:
    if callable(callbacks) or not all(callable(callback) for callback in callbacks):
        raise ConfigurationError(
            f"{name} must be a list of Airflow notifiers or functions of the context, for example "
            f"{name}=[SmtpNotifier(...)]."
        )
    return tuple(callbacks)


def _caller(frame: FrameType | None) -> tuple[Path, str | None]:
    """Give the path and the docstring of the file that called the factory's function."""
    caller = frame.f_back if frame is not None else None
    if caller is None:
        raise ConfigurationError(
            "The DAG factory cannot tell which file called it; pass include_dir and dag_id."
        )
    return Path(caller.f_code.co_filename).absolute(), caller.f_globals.get("__doc__")


def _include_dir(dag_file: Path, include_dir: str | Path | None) -> Path:
    """Find the include folder from the DAG file's own place: the working directory is anybody's."""
    return dag_file.parent / include_dir if include_dir is not None else dag_file.parent.parent / "include"
