"""Scene two: the same users mailed by this package on Airflow with CeleryExecutor, under the same broker.

A slow mail server makes every task outlast the visibility timeout many times. On top of that a worker is
killed in mid-send, and a task is cleared while it runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from local_stack.airflow_api import AirflowApi, Run, TaskInstance
from local_stack.errors import StackError
from reliability.celery_stack import CeleryStack, Changes
from reliability.incident.scale import CAMPAIGN, TRANSPORT_OPTIONS, USERS
from reliability.worker_log import Deliveries, read_deliveries

CONNECTIONS = 2
CAMPAIGN_FILE = {"batch_size": USERS // 4, "connections": CONNECTIONS}
"""Four tasks at a time, as many as the pool of docker-compose.yaml lets run."""
ANSWER_AFTER = 2.0
"""Seconds that the mail server takes between accepting a mail and saying so."""
DOT_TIMEOUT = 20
RUN_SECONDS = 400
SEND = "send_batch"

CHANGES = Changes(
    environment={
        **{
            f"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__{name.upper()}": str(value)
            for name, value in TRANSPORT_OPTIONS.items()
        },
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    },
    smtp=f"&dot_timeout={DOT_TIMEOUT}",
)
"""The broker's options, and two waits that would make the replay longer: until Airflow takes a task for dead,
and until a send without an answer is in doubt."""

DAG_FILE = '''"""The campaign's Airflow DAG, with a shorter wait before retries."""

from datetime import UTC, datetime, timedelta

from lifecycle_emails import lifecycle_dag

dag = lifecycle_dag(
    "day4_follow_up",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    on_limit_exceeded=[print],
    default_args={"retry_delay": timedelta(seconds=5)},
)
'''

Report = Callable[[str], None]


@dataclass(frozen=True)
class NewWay:
    """What came of it: copies by user id, the ledger's states, and what was done to the run."""

    copies: dict[str, int]
    states: dict[str, int]
    deliveries: Deliveries
    tasks_killed: int
    tasks_cleared: int
    run_state: str


def prepare(stack: CeleryStack) -> None:
    """Copy the project as the image holds it, with this scene's campaign, and begin to start Airflow."""
    stack.build_image(CAMPAIGN_FILE)
    (stack.home / "dags" / f"{CAMPAIGN}.py").write_text(DAG_FILE, encoding="utf-8")
    stack.add_users(USERS)
    stack.begin()


def play(stack: CeleryStack, report: Report) -> NewWay:
    """Run the day on a stack that is up, break what can be broken, and count. StackError: it cannot."""
    run = stack.run_day()
    with stack.api() as api:
        tasks = _tasks_in_mid_send(stack, api, run)
        victim = max(sorted(tasks), key=lambda worker: len(tasks[worker]))
        killed = tasks[victim]
        stack.processes.kill(victim)
        report(f"{victim} is killed (-9) with {len(killed)} send tasks in mid-send; Docker would restart it")
        replacement = stack.start_worker()
        others = [task for worker, found in tasks.items() if worker != victim for task in found]
        cleared = (others or killed)[0]
        api.clear(run, [(SEND, cleared.map_index)])
        report(f"{replacement} starts; send task {cleared.map_index} is cleared while it runs")
        ended = api.wait_for_run(run, RUN_SECONDS, report)
    return NewWay(
        copies={user_id: count for (_, user_id), count in stack.mails().copies().items()},
        states=_states(stack),
        deliveries=read_deliveries(stack.processes.log(worker) for worker in stack.workers),
        tasks_killed=len(killed),
        tasks_cleared=1,
        run_state=ended.state,
    )


def _tasks_in_mid_send(stack: CeleryStack, api: AirflowApi, run: Run) -> dict[str, list[TaskInstance]]:
    """Wait until as many mails are out as there are connections, and sort the running tasks by worker."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        stack.check()
        tasks: dict[str, list[TaskInstance]] = {}
        for task in api.tasks(run.dag_id, run.run_id):
            if task.task_id == SEND and task.state == "running" and task.pid is not None:
                owner = stack.processes.owner(task.pid)
                if owner is not None:
                    tasks.setdefault(owner, []).append(task)
        running = sum(map(len, tasks.values()))
        if running >= 2 and stack.mails().count() >= CONNECTIONS * running:
            return tasks
        time.sleep(0.2)
    raise StackError(f"The run did not come to two running send tasks in {RUN_SECONDS} s.")


def _states(stack: CeleryStack) -> dict[str, int]:
    with stack.ledger() as ledger:
        rows = ledger.execute("SELECT state::text, count(*) FROM lifecycle.sends GROUP BY 1 ORDER BY 1")
        return {str(state): int(count) for state, count in rows}
