"""What a campaign of the bench consists of on the disk: the texts of its files and of its DAG files.

A DAG file of the bench is what a team would write, with short retries, plus three things: it says from which
folder the package is imported (a patched copy, where a protection is to be missing), it lets the process be
watched, and it may shorten the sending task's time-out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from local_stack.settings import PROJECT

AUDIENCE = """\
SELECT user_id, email, full_name FROM users
WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s
"""
CAPS = {"default": {"no_cap": {"max_sends": 1000, "window": "1 days"}}}
TEMPLATE = {
    "subject.txt.j2": "Hello {{ full_name }}",
    "body.txt.j2": "Hello {{ full_name }}\nReference: CAMPAIGN/{{ user_id }}\n",
    "body.html.j2": "<p>Hello {{ full_name }}</p><p>Reference: CAMPAIGN/{{ user_id }}</p>\n",
}
DAG_FILE = '''\
"""A DAG of the fault bench, run by airflow."""

import sys

sys.path[:0] = [{tree!r}, {project!r}]
for name in [name for name in sys.modules if name.split(".")[0] == "lifecycle_emails"]:
    del sys.modules[name]

from datetime import UTC, datetime, timedelta

import lifecycle_emails.dag_factory.campaign_dag
from lifecycle_emails import lifecycle_dag, lifecycle_maintenance_dag
from reliability.fault_bench.airflow_probe import teller, watch

watch({folder!r})
{body}
'''
DAG_BODY = """\
lifecycle_emails.dag_factory.campaign_dag.SEND_TIMEOUT = timedelta(seconds={send_seconds})
dag = lifecycle_dag(
    {campaign!r},
    dag_id={dag_id!r},
    include_dir={include!r},
    ledger_conn_id={ledger!r},
    start_date=datetime.fromisoformat({start!r}),
    on_limit_exceeded=[teller({folder!r})],
    default_args={{
        "retries": {retries},
        "retry_delay": timedelta(seconds=1),
        "retry_exponential_backoff": False,
        "poke_interval": 1,
    }},
)
"""
MAINTENANCE_BODY = """\
dag = lifecycle_maintenance_dag(
    dag_id={dag_id!r},
    include_dir={include!r},
    ledger_conn_id={ledger!r},
    start_date=datetime.now(UTC) + timedelta(days=1),
    on_alert=[teller({folder!r})],
    default_args={{"retry_delay": timedelta(seconds=1)}},
)
"""


def zone_at_noon() -> str:
    """A time zone where it is about noon: no play runs over midnight, at whatever hour the bench runs."""
    east = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-east:+d}" if east else "UTC"


def campaign_dag(
    tree: Path,
    folder: Path,
    campaign: str,
    dag_id: str,
    *,
    start: datetime,
    retries: int,
    send_timeout: timedelta,
) -> str:
    """The DAG file of a campaign whose include folder is in ``folder``."""
    body = DAG_BODY.format(
        campaign=campaign,
        dag_id=dag_id,
        include=str(folder / "include"),
        ledger=f"{campaign}_ledger",
        start=start.isoformat(),
        folder=str(folder),
        retries=retries,
        send_seconds=send_timeout.total_seconds(),
    )
    return _dag_file(tree, folder, body)


def maintenance_dag(tree: Path, folder: Path, campaign: str, dag_id: str) -> str:
    """The file of a maintenance DAG of this campaign's ledger, which runs only when it is triggered."""
    body = MAINTENANCE_BODY.format(
        dag_id=dag_id, include=str(folder / "include"), ledger=f"{campaign}_ledger", folder=str(folder)
    )
    return _dag_file(tree, folder, body)


def _dag_file(tree: Path, folder: Path, body: str) -> str:
    return DAG_FILE.format(tree=str(tree), project=str(PROJECT), folder=str(folder), body=body)
