"""Runs that ``make pictures`` needs and that no stack has by itself: one that awaits approval, and a dry run.

Neither sends a mail. Runs that are there already are taken.
"""

from datetime import UTC, date, datetime, timedelta

from local_stack import example_app
from local_stack.airflow_api import AirflowApi, Run, wait_until
from local_stack.airflow_environment import APP_DATABASE
from local_stack.errors import StackError
from local_stack.stack import LocalStack

CAMPAIGN = "day4_follow_up"
DRY_CAMPAIGN = "day4_setup_help"  # runs of the other stand behind the one that waits
ASKING_TASK = "approve_volume"
FAIR_SIZE = 5_000  # users, many times the usual
FAIR_DAYS_AGO = 5  # before the deadline, and due


def run_awaiting_approval(stack: LocalStack, api: AirflowApi) -> Run:
    """Return a run that asks whether a cohort of unusual size goes out; where there is none, hold a fair.

    StackError: the run has ended and asked nothing.
    """
    for run in api.runs(CAMPAIGN, state="running"):
        if _asks(api, run):
            return run
    day = _fair()
    with stack.postgres.connect(APP_DATABASE) as connection:
        example_app.add_users_of_day(connection, day, FAIR_SIZE)
    run = api.trigger(CAMPAIGN, conf={"cohort_date": day.isoformat()})
    wait_until(lambda: _asks(api, run) or api.run(run.dag_id, run.run_id).ended, 120)
    if not _asks(api, run):
        raise StackError(f"Nobody is asked about the cohort {day}: backfill five days or more before it.")
    return run


def finished_dry_run(api: AirflowApi) -> Run:
    """Start a dry run of the fair's cohort, and return it when it has ended."""
    run = api.trigger(DRY_CAMPAIGN, conf={"cohort_date": _fair().isoformat(), "dry_run": True})
    return api.wait_for_run(run)


def _fair() -> date:
    return datetime.now(UTC).date() - timedelta(days=FAIR_DAYS_AGO)


def _asks(api: AirflowApi, run: Run) -> bool:
    tasks = api.tasks(run.dag_id, run.run_id)
    return any(task.task_id == ASKING_TASK and task.state == "awaiting_input" for task in tasks)
