"""The example campaign's DAG in a project of its own, with people to mail. Knows no test."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun

from local_stack.catcher import Catcher

if TYPE_CHECKING:
    from tests.dags.conftest import Project, RunDag

CAMPAIGN = "day4_follow_up"
SENT_RUN = {
    "extract_cohort": "success",
    "filter_ledger": "success",
    "check_volume": "success",
    "limit_rate": "success",
    "send_batch 0": "success",
    "alert": "skipped",
    "approve_volume": "skipped",
    "record_approval": "skipped",
    "limit_rate_approved": "skipped",
    "send_approved": "skipped",
    "alert_approved": "skipped",
    "reconcile": "success",
}
NOTHING_TO_APPROVE = {task for task, state in SENT_RUN.items() if state == "skipped"} - {"alert"}
DAG_FILE = '''
"""An Airflow DAG for a test."""

from datetime import timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from lifecycle_emails import lifecycle_dag

dag = lifecycle_dag(
    "{campaign}",
    default_args={{"retries": 0}},
    on_limit_exceeded=[
        SmtpNotifier(
            smtp_conn_id="lifecycle_smtp",
            from_email="alerts@example.com",
            to="team@example.com",
            subject="{{{{ alert.subject }}}}",
            html_content="{{{{ alert.html }}}}",
        ),
    ],
)
'''


def today() -> date:
    return datetime.now(UTC).date()


class DailyDag:
    """The campaign day4_follow_up with a ledger, users and a catcher of its own."""

    def __init__(self, project: Project, run_dag: RunDag, ledger: Any, source: Any, catcher: Catcher) -> None:
        self.project = project
        self.ledger = ledger
        self.source = source
        self.catcher = catcher
        self._run_dag = run_dag
        (project.dags / f"{CAMPAIGN}.py").write_text(DAG_FILE.lstrip().format(campaign=CAMPAIGN))

    def add_users(self, *user_ids: int, days_ago: int = 4) -> None:
        """Add users created so many days before today."""
        created_at = datetime.combine(today() - timedelta(days=days_ago), datetime.min.time(), UTC)
        for user_id in user_ids:
            self.source.execute(
                "INSERT INTO users (user_id, email, full_name, created_at) VALUES (%s, %s, %s, %s)",
                (user_id, f"user{user_id}@example.com", f"User {user_id}", created_at + timedelta(hours=1)),
            )

    def run(self, **arguments: Any) -> DagRun:
        """Run the DAG by hand for the cohort that is due today, or as the arguments of `DAG.test` say."""
        if not arguments:
            arguments = {"run_conf": {"cohort_date": (today() - timedelta(days=4)).isoformat()}}
        return self._run_dag(CAMPAIGN, **{"logical_date": None, **arguments})

    def copies(self) -> dict[tuple[str, str], int]:
        """Count what the catcher accepted, by campaign and user id."""
        return self.catcher.store.copies()

    def states(self) -> dict[str, str]:
        rows = self.ledger.execute("SELECT user_id, state, held_reason FROM lifecycle.sends").fetchall()
        return {user_id: f"{state} {reason}" if reason else state for user_id, state, reason in rows}


def once_each(*user_ids: int) -> dict[tuple[str, str], int]:
    return {(CAMPAIGN, str(user_id)): 1 for user_id in user_ids}
