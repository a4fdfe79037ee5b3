"""The daily DAG from beginning to end: real tasks, a real Postgres, real SMTP. The catcher's store is the judge."""

import csv
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from sqlalchemy import select

from lifecycle_emails.ledger.orders import halt, resume, suppress, unsuppress
from local_stack.catcher import Catcher
from local_stack.mail_store import Search
from tests.dags.conftest import MakeConnection, Project, RunDag, smtp_connection, states_of

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
STEPS = ("extract_cohort", "filter_ledger", "limit_rate", "send_batch")
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


@pytest.fixture
def daily(project: Project, run_dag: RunDag, ledger: Any, source: Any, catcher: Catcher) -> DailyDag:
    return DailyDag(project, run_dag, ledger, source, catcher)


def once_each(*user_ids: int) -> dict[tuple[str, str], int]:
    return {(CAMPAIGN, str(user_id)): 1 for user_id in user_ids}


def test_daily_dag_mails_the_cohort_once_and_a_second_run_nobody(daily: DailyDag) -> None:
    daily.add_users(1, 2, 3)
    daily.add_users(8, days_ago=3)

    run = daily.run()

    assert states_of(run) == SENT_RUN
    assert str(run.state) == "success"
    assert daily.copies() == once_each(1, 2, 3)

    steps = daily.ledger.execute(
        "SELECT step, run FROM lifecycle.cohort_steps WHERE cohort_date = %s ORDER BY started_at",
        (today() - timedelta(days=4),),
    ).fetchall()
    assert steps == [(step, f"{CAMPAIGN} {run.run_id}") for step in STEPS]

    again = daily.run()

    assert daily.copies() == once_each(1, 2, 3)
    assert str(again.state) == "success"
    assert {task for task, state in states_of(again).items() if state == "skipped"} == {
        "send_batch",
        "alert",
        *NOTHING_TO_APPROVE,
    }


def test_rerun_says_how_many_it_will_send(daily: DailyDag, capfd: pytest.CaptureFixture[str]) -> None:
    daily.add_users(1, 2)
    suppress(daily.ledger, user_id="2", reason="asked for it")
    first = daily.run()
    assert "This rerun will send" not in capfd.readouterr().out

    unsuppress(daily.ledger, user_id="2", reason="wants it again")
    daily.run()

    cohort = today() - timedelta(days=4)
    said = f"This rerun will send 1: cohort {cohort} was judged before, by run {CAMPAIGN} {first.run_id} at"
    assert said in capfd.readouterr().out
    assert daily.copies() == once_each(1, 2)


def test_run_with_a_shorter_deadline_mails_nobody_late(daily: DailyDag) -> None:
    daily.add_users(1, days_ago=6)
    conf = {"cohort_date": (today() - timedelta(days=6)).isoformat()}

    run = daily.run(run_conf={**conf, "max_lateness_days": 1})

    assert str(run.state) == "success"
    assert (daily.copies(), daily.states()) == ({}, {"1": "held stale"})

    daily.run(run_conf=conf)

    assert daily.copies() == once_each(1)


def events_of_cohorts() -> list[tuple[str | None, dict[str, Any]]]:
    with create_session() as session:
        events = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == f"lifecycle/{CAMPAIGN}")
            .order_by(AssetEvent.id)
        ).all()
        return [(event.partition_key, event.extra) for event in events]


def test_completed_cohort_is_one_asset_event_for_who_follows(daily: DailyDag) -> None:
    before = len(events_of_cohorts())
    cohort = (today() - timedelta(days=4)).isoformat()
    daily.add_users(1, 2)

    daily.run()

    counts = {"users": 2, "sent": 2, "held": 0, "rejected": 0, "in_doubt": 0}
    assert events_of_cohorts()[before:] == [(cohort, {"campaign": CAMPAIGN, "cohorts": {cohort: counts}})]

    daily.run()
    assert len(events_of_cohorts()) == before + 1

    daily.add_users(3)
    daily.run()

    assert [extra["cohorts"][key]["sent"] for key, extra in events_of_cohorts()[before:]] == [2, 3]


def test_mapped_tasks_are_named_by_batch_and_size(daily: DailyDag) -> None:
    daily.project.include.write(
        f"campaigns/{CAMPAIGN}.yaml",
        (daily.project.include.path / f"campaigns/{CAMPAIGN}.yaml").read_text() + "batch_size: 2\n",
    )
    daily.add_users(1, 2, 3)

    run = daily.run()

    names = {task.rendered_map_index for task in run.get_task_instances() if task.map_index >= 0}
    cohort = today() - timedelta(days=4)
    assert names == {f"{cohort} batch 0 (2 users)", f"{cohort} batch 1 (1 users)"}
    assert daily.copies() == once_each(1, 2, 3)


def test_xcom_holds_counts_and_no_people(daily: DailyDag) -> None:
    daily.add_users(4711, 4712)

    run = daily.run()

    values = {
        (task.task_id, key): task.xcom_pull(task_ids=task.task_id, key=key, map_indexes=task.map_index)
        for task in run.get_task_instances()
        for key in ("return_value", "counts")
    }
    said = json.dumps([value for value in values.values() if value is not None], default=str)
    assert values["extract_cohort", "return_value"]["found"] == 2
    assert values["limit_rate", "counts"]["ready"] == 2
    assert values["send_batch", "return_value"]["sent"] == 2
    assert "4711" not in said
    assert "@" not in said


def test_dry_run_keeps_and_sends_nothing(daily: DailyDag, capfd: pytest.CaptureFixture[str]) -> None:
    daily.add_users(1, 2, 3)
    conf = {"cohort_date": (today() - timedelta(days=4)).isoformat(), "dry_run": True}

    run = daily.run(run_conf=conf)

    assert str(run.state) == "success"
    assert {task for task, state in states_of(run).items() if state == "skipped"} == {
        "send_batch",
        "alert",
        "reconcile",
        *NOTHING_TO_APPROVE,
    }
    said = capfd.readouterr().out
    assert "3 users would be mailed" in said
    before, *each_task = said.split("This is a dry run: ")
    assert (len(each_task), [line for line in before.splitlines() if " users " in line]) == (3, [])
    assert daily.copies() == {}
    assert daily.ledger.execute("SELECT count(*) FROM lifecycle.cohorts").fetchone() == (0,)
    assert daily.states() == {}
    [limit_rate] = [task for task in run.get_task_instances() if task.task_id == "limit_rate"]
    assert not linked_from(daily, limit_rate)


def test_dry_run_names_everybody_in_the_log_and_in_a_file(
    daily: DailyDag, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dag_file = daily.project.dags / f"{CAMPAIGN}.py"
    reports = f'    dry_run_reports="file://{tmp_path}/dry-runs",\n'
    dag_file.write_text(dag_file.read_text().replace("    on_limit", f"{reports}    on_limit"))
    daily.add_users(1, 2, 3)
    daily.ledger.execute(
        "INSERT INTO lifecycle.suppressions (user_id, reason, suppressed_by) VALUES ('2', 'asked', 'a test')"
    )
    cohort = today() - timedelta(days=4)

    run = daily.run(run_conf={"cohort_date": cohort.isoformat(), "dry_run": True})

    [limit_rate] = [task for task in run.get_task_instances() if task.task_id == "limit_rate"]
    report = limit_rate.xcom_pull(task_ids="limit_rate", key="dry_run_report")
    said = capfd.readouterr().out
    assert f"A row for each user: {report}" in said
    assert f"{CAMPAIGN}, cohort {cohort}, would_be_sent: 1, 3" in said
    with Path(report.removeprefix("file://")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["user_id"]: row["outcome"] for row in rows} == {
        "1": "would_be_sent",
        "2": "suppressed",
        "3": "would_be_sent",
    }
    assert {row["cohort_date"] for row in rows} == {cohort.isoformat()}
    assert daily.copies() == {}
    assert daily.states() == {}
    assert linked_from(daily, limit_rate).endswith("/tasks/limit_rate/xcom")


def linked_from(daily: DailyDag, task: TaskInstance) -> str | None:
    """Give the link to the CSV file, as Airflow's server finds it for the page of a task that has ended."""
    dag = DagSerialization.from_dict(DagSerialization.to_dict(daily.project.parse().dags[CAMPAIGN]))
    return dag.get_task(task.task_id).get_extra_links(task, "Dry run, as CSV")


def test_run_without_any_date_fails_with_what_to_do(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)

    run = daily.run(run_conf={})

    assert states_of(run)["extract_cohort"] == "failed"
    assert str(run.state) == "failed"
    assert "names no cohort. Trigger it again with one of them" in capfd.readouterr().out
    assert daily.states() == {}


def test_user_over_the_cap_is_held_and_the_team_told(daily: DailyDag) -> None:
    daily.project.include.write(
        "frequency_caps.yaml", "default:\n  one_per_week:\n    max_sends: 1\n    window: 7 days\n"
    )
    daily.add_users(1, 2)
    daily.ledger.execute(
        "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone,"
        " offset_days, not_after) VALUES ('other', '2026-01-01', '2026-01-01', '2026-01-02', 'UTC', 4, now()"
        " + interval '1 day')"
    )
    daily.ledger.execute(
        "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch) VALUES ('2', 'other',"
        " '2026-01-01', 1)"
    )
    daily.ledger.execute("UPDATE lifecycle.sends SET state = 'ready', ready_at = now()")

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "alert": "success"}
    assert daily.copies() == once_each(1)
    (alert,) = daily.catcher.store.mails(Search(alerts_only=True))
    assert alert.recipient == "team@example.com"
    assert alert.subject == "Frequency cap reached: 1 user in day4_follow_up"
    content = daily.catcher.store.content(alert.number)
    assert content is not None
    assert b"@example.com" not in content.partition(b"\n\n")[2]

    again = daily.run()

    assert states_of(again)["alert"] == "skipped"


def test_mail_server_that_is_away_loses_nobody(
    daily: DailyDag, make_connection: MakeConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1, 2)
    make_connection("lifecycle_smtp", smtp_connection(1))

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "send_batch 0": "failed", "reconcile": "failed"}
    assert str(run.state) == "failed"
    said = capfd.readouterr().out
    assert "send_batch failed: the log says why" in said
    assert "2 users are ready and were not mailed" in said
    assert set(daily.states().values()) == {"ready"}

    make_connection("lifecycle_smtp", smtp_connection(daily.catcher.port))

    assert states_of(daily.run()) == SENT_RUN
    assert daily.copies() == once_each(1, 2)


def test_halt_skips_the_sending_and_is_named_by_reconcile(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)
    halt(daily.ledger, reason="wrong template")

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "send_batch 0": "skipped", "reconcile": "failed"}
    said = capfd.readouterr().out
    assert "Sending is halted" in said
    assert "wrong template" in said
    assert daily.copies() == {}

    resume(daily.ledger, reason="mended")

    assert states_of(daily.run()) == SENT_RUN
    assert daily.copies() == once_each(1)


def test_template_that_does_not_compile_fails_the_sending_and_sends_the_new_text_once_mended(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)
    subject = f"templates/{CAMPAIGN}/subject.txt.j2"
    daily.project.include.write(subject, "Hello {% if %}")

    assert states_of(daily.run())["send_batch 0"] == "failed"
    assert "subject.txt.j2" in capfd.readouterr().out

    daily.project.include.write(subject, "Mended")

    assert states_of(daily.run()) == SENT_RUN
    assert [mail.subject for mail in daily.catcher.store.mails()] == ["Mended"]


def test_ledger_that_is_not_migrated_is_named(
    daily: DailyDag, empty_database: str, make_connection: MakeConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    make_connection("lifecycle_ledger", empty_database)

    run = daily.run()

    assert states_of(run)["extract_cohort"] == "failed"
    assert "lifecycle migrate" in capfd.readouterr().out
