"""The DAG that looks after the ledger of all campaigns, whichever of them runs.

Building it reads no campaign, no database and no network.
"""

import inspect
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable

from lifecycle_emails.dag_docs import TASK_DOCS, maintenance_doc
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
from lifecycle_emails.operators import (
    AlertCallback,
    MaintainOperator,
    MaintenanceAlertOperator,
    ProbeProvidersOperator,
)

if TYPE_CHECKING:
    from lifecycle_emails.ledger.evidence import EvidenceSource

MAINTENANCE_RETRIES = 1
"""Maintenance runs again in a few minutes anyway."""

MAINTENANCE_RUNS = 4
"""How many rounds may be open at once: a probe that waits for its answer holds up no alert."""

PROBE_TIMEOUT = timedelta(minutes=30)


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
    dag_file, notes = calling_file(inspect.currentframe())
    callbacks = checked_callbacks("on_alert", on_alert)
    if not callbacks:
        warnings.warn(
            "The maintenance DAG has no on_alert callbacks: nobody is told of mails in doubt, missing cohorts"
            " or a stopped mail server. Pass lifecycle_maintenance_dag(on_alert=[SmtpNotifier(...)]).",
            stacklevel=2,
        )
    dag = DAG(
        dag_id,
        **dag_arguments(
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
    include = str(found_include_dir(dag_file, include_dir))
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
