"""What ReconcileOperator adds to the core: waiting, the failed tasks of the run, one message for all problems."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.operators import ReconcileOperator
from tests.dags.conftest import MakeConnection, Project
from tests.integration.ledger.rows import add_cohort, add_sends, let_time_pass

COHORT_DATE = (datetime.now(UTC) - timedelta(days=4)).date()
ALL_WELL = {
    "extract_cohort": "success",
    "send_batch_0": "success",
    "alert": "skipped",
    "reconcile": "running",
}


class Run:
    """A run of the campaign ``welcome`` whose other tasks have ended as ``states`` says."""

    def __init__(self, project: Project) -> None:
        self.operator = ReconcileOperator(
            task_id="reconcile", campaign_id="welcome", include_dir=str(project.include.path)
        )

    def look(
        self, states: dict[str, str] = ALL_WELL, *, cohorts: tuple[date, ...] = (COHORT_DATE,), **params: Any
    ) -> Any:
        """Look at the ledger once, as Airflow does each time the sensor runs."""
        extracted = {"cohort_dates": [day.isoformat() for day in cohorts]} if cohorts else None
        ti = SimpleNamespace(
            dag_id="welcome",
            run_id="run_1",
            xcom_pull=lambda task_ids: extracted if task_ids == "extract_cohort" else None,
            get_task_states=lambda **asked: dict.fromkeys(asked["run_ids"], states),
        )
        context: Any = {
            "ti": ti,
            "dag_run": SimpleNamespace(run_type=DagRunType.MANUAL, dag_id="welcome", run_id="run_1"),
            "params": {"cohort_date": COHORT_DATE.isoformat(), "dry_run": False, **params},
        }
        return self.operator.poke(context)


@pytest.fixture
def run(project: Project, ledger: psycopg.Connection[Any]) -> Run:
    add_cohort(ledger, "welcome", COHORT_DATE)
    return Run(project)


def test_reconcile_gives_the_counts_of_its_cohorts(run: Run, ledger: Any) -> None:
    add_sends(ledger, ["1", "2"], "welcome", COHORT_DATE, state="sent")
    add_sends(ledger, ["3"], "welcome", COHORT_DATE, state="held")

    look = run.look()

    assert look.is_done
    assert (look.xcom_value["sent"], look.xcom_value["held"]) == (2, {"suppressed": 1})


def test_reconcile_waits_for_an_answer_and_is_red_when_it_never_comes(run: Run, ledger: Any) -> None:
    add_sends(ledger, ["17"], "welcome", COHORT_DATE, state="sending")

    assert not run.look().is_done

    let_time_pass(ledger, timedelta(minutes=20))

    with pytest.raises(
        AirflowFailException, match="in doubt, and never mailed again by themselves: users 17"
    ):
        run.look()


def test_reconcile_names_every_problem_at_once(run: Run, ledger: Any) -> None:
    add_sends(ledger, ["17"], "welcome", COHORT_DATE, state="ready")
    states = {**ALL_WELL, "send_batch_0": "failed", "send_batch_1": "failed", "alert": "failed"}

    with pytest.raises(AirflowFailException) as error:
        run.look(states)

    first, *problems = str(error.value).splitlines()
    assert first == "Campaign welcome is not in order:"
    assert [problem.split(":")[0] for problem in problems] == [
        "- alert failed",
        "- send_batch (2 mapped tasks) failed",
        "- 1 users are ready and were not mailed",
    ]


def test_reconcile_says_which_task_failed_when_nothing_was_extracted(
    run: Run, empty_database: str, make_connection: MakeConnection
) -> None:
    make_connection("lifecycle_ledger", empty_database)
    states = {"extract_cohort": "failed", "filter_ledger": "upstream_failed", "reconcile": "running"}

    with pytest.raises(AirflowFailException) as error:
        run.look(states, cohorts=())

    assert "- extract_cohort failed: the log says why." in str(error.value)
    assert "- filter_ledger did not run, since a task before it failed." in str(error.value)
    assert "lifecycle migrate" in str(error.value)


def test_reconcile_is_retried_when_only_the_ledger_is_away(run: Run, make_connection: MakeConnection) -> None:
    make_connection("lifecycle_ledger", "postgresql://nobody:secret@127.0.0.1:1/none")

    with pytest.raises(LedgerError, match="cannot be reached"):
        run.look()


def test_dry_run_has_nothing_to_reconcile_but_its_failures(run: Run) -> None:
    with pytest.raises(AirflowSkipException, match="nothing to reconcile"):
        run.look(dry_run=True)
    with pytest.raises(AirflowFailException, match="limit_rate failed"):
        run.look({"limit_rate": "failed"}, dry_run=True)
