"""What every DAG of this project keeps to. Each message says what to do."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, CronTriggerTimetable

from tests.dags.conftest import ROOT

DAG_FILES = sorted((ROOT / "dags").glob("*.py"))


@pytest.fixture(params=[path.stem for path in DAG_FILES])
def dag(request: pytest.FixtureRequest, example_dags: DagBag) -> DAG:
    assert request.param in example_dags.dags, (
        f"dags/{request.param}.py gives no DAG {request.param}: name the file as the DAG, and mend what"
        f" Airflow says: {example_dags.import_errors}"
    )
    return example_dags.dags[request.param]


def tasks_of(dag: DAG) -> Iterator[Any]:
    yield from dag.tasks


def test_dag_files_import_without_error(example_dags: DagBag) -> None:
    assert example_dags.import_errors == {}, "mend the DAG file or campaign file that the error names"


def test_dag_files_import_without_warning(example_dags: DagBag) -> None:
    assert example_dags.captured_warnings == {}, "give lifecycle_dag what its warning asks for"


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_dag_file_is_found_by_airflow(path: Path) -> None:
    text = path.read_text().lower()
    assert "airflow" in text, (
        f"{path.name} does not name Airflow, so its safe mode skips it: say it in the docstring"
    )
    assert "dag" in text, f"{path.name} does not say dag, so Airflow's safe mode skips it"


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_dag_file_is_wiring_only(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) < 150, f"{path.name} is long: move what it does into the package"
    assert lines[0].startswith('"""'), (
        f"{path.name} has no docstring: it is the first thing its DAG's docs show"
    )


def test_dag_has_an_owner(dag: DAG) -> None:
    for task in tasks_of(dag):
        assert task.owner not in {"", "airflow"}, f"{task}: set `owner` in the campaign's file"


def test_dag_is_tagged(dag: DAG) -> None:
    assert "lifecycle" in dag.tags, "build the DAG by lifecycle_dag or lifecycle_maintenance_dag"


def test_dag_documents_itself(dag: DAG) -> None:
    assert dag.description, "set `description` in the campaign's file"
    assert dag.doc_md is not None
    for heading in ("## In five words", "## When a run is red"):
        assert heading in dag.doc_md, f"the DAG's documentation lacks the part {heading!r}"
    for task in tasks_of(dag):
        assert task.doc_md, f"{task}: write what it is for into lifecycle_emails.dag_docs.TASK_DOCS"


def test_documentation_has_no_two_paragraphs_that_airflow_would_run_together(dag: DAG) -> None:
    """Airflow's page puts space around headings, lists, tables and quotations, and none between paragraphs."""
    blocks = [block for block in re.split(r"\n\s*\n", dag.doc_md or "") if block.strip()]
    plain = [not block.startswith(("#", ">", "- ", "|", "```")) for block in blocks]
    together = [blocks[at] for at in range(len(blocks) - 1) if plain[at] and plain[at + 1]]
    assert together == [], "put a heading between them, or make a list or a quotation of one"


def test_dag_schedule_is_a_trigger_timetable_with_a_time_zone(dag: DAG) -> None:
    if dag.schedule is None:
        return  # people trigger it
    assert isinstance(dag.timetable, CronTriggerTimetable), (
        "pass CronTriggerTimetable: a setting can turn a plain cron string into the interval kind, "
        "which selects other people"
    )
    assert dag.timetable.timezone is not None


def test_dag_never_catches_up(dag: DAG) -> None:
    assert dag.catchup is False, (
        "earlier cohorts are found by the ledger; Airflow must not create runs for them"
    )


def test_campaign_dag_runs_once_at_a_time(dag: DAG) -> None:
    # maintenance may overlap: a probe that waits for its answer must not hold up the next round
    sends = "send_batch" in dag.task_ids
    assert dag.max_active_runs == 1 or not sends, "two runs of a campaign only wait for each other's locks"


def test_tasks_retry_with_growing_pauses(dag: DAG) -> None:
    for task in tasks_of(dag):
        assert task.retries >= 1, f"{task}: give it retries; databases and mail servers are away at times"
        assert task.retry_exponential_backoff > 1, f"{task}: let its pauses grow"
        assert task.max_retry_delay <= timedelta(hours=1), f"{task}: bound its pauses"


def test_tasks_end_in_time(dag: DAG) -> None:
    for task in tasks_of(dag):
        assert task.execution_timeout is not None, (
            f"{task}: set execution_timeout, or a hanging server holds it for ever"
        )


def test_tasks_that_talk_to_mail_servers_share_a_pool(dag: DAG) -> None:
    pools = {task.task_id: task.pool for task in tasks_of(dag)}
    for task_id in {"send_batch", "send_approved", "probe_providers"} & set(pools):
        assert pools[task_id] == "lifecycle_emails", f"{task_id}: put it into the pool lifecycle_emails"


def test_params_are_described(dag: DAG) -> None:
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, f"parameter {name}: describe it, the trigger form shows that"
        assert param.schema.get("type"), f"parameter {name}: say its type, so that the form can check it"
