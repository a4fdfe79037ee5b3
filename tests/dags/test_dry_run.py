"""A dry run of the daily DAG: who would be mailed, in the log and in a file, and nothing else."""

import csv
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization

from tests.dags.conftest import states_of
from tests.dags.daily_dag import CAMPAIGN, NOTHING_TO_APPROVE, DailyDag, today


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
