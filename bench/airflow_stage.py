"""This package in a real Airflow, and an EmailOperator mapped per user beside it.

Scheduler, API server, DAG processor and tasks are processes of this machine; source, ledger and Airflow's
metadata share one PostgreSQL server. A stage lasts from the start of its first task to the end of its last.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

from bench.contest import Run
from bench.loops import example_message
from bench.sending_place import CAMPAIGN, ROOT, add_users, cohort_day, recorded_as_sent
from bench.sinks import Sink
from lifecycle_emails.ledger.migration import migrate
from local_stack.airflow_api import AirflowApi, TaskInstance
from local_stack.airflow_api import Run as DagRun
from local_stack.airflow_environment import APP_DATABASE, DATABASES, LEDGER_DATABASE
from local_stack.airflow_processes import API_SERVER, POOL, AirflowProcesses
from local_stack.errors import StackError
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer
from local_stack.processes import Processes
from local_stack.settings import Settings

PACKAGE_STAGE, OPERATOR_STAGE = "send_batch stage in Airflow", "EmailOperator mapped per user"
_OPERATOR_DAG, _IDLE_DAG = "bench_email_operator", "bench_idle"
_RUN_SECONDS = 3600


@dataclass(frozen=True)
class DailyRun:
    """A day that Airflow sent: mails, seconds of the stage and of the whole run, the tasks' memory in MiB."""

    mails: int
    stage_seconds: float
    run_seconds: float
    task_seconds: dict[str, float]
    memory: float


class BenchedAirflow:
    """A running Airflow with the benchmark's DAGs."""

    def __init__(self, api: AirflowApi, dags: Path, ledger_url: str) -> None:
        self._api = api
        self._dags = dags
        self._ledger_url = ledger_url

    def send_day(self, number: int) -> DailyRun:
        """Let the package's DAG send the users of a day, see `cohort_day`. StackError: the run failed."""
        day = cohort_day(number)
        began = time.monotonic()
        run = self._run(CAMPAIGN, {"cohort_date": day.isoformat()})
        seconds = time.monotonic() - began
        tasks = self._api.tasks(CAMPAIGN, run.run_id)
        stage = [task for task in tasks if task.task_id == "send_batch"]
        return DailyRun(
            mails=recorded_as_sent(self._ledger_url, day),
            stage_seconds=_seconds(stage),
            run_seconds=seconds,
            task_seconds={
                task_id: _seconds([task for task in tasks if task.task_id == task_id])
                for task_id in sorted({task.task_id for task in tasks if task.ended})
            },
            memory=self._memory(run) - self.idle_memory(),
        )

    def stage(self, number: int) -> Run:
        """The package's sending stage as a round of the benchmark."""
        day = self.send_day(number)
        return Run(day.mails, day.stage_seconds, memory=day.memory, recorded=day.mails)

    def mapped_operators(self) -> Run:
        """One EmailOperator for each user."""
        run = self._run(_OPERATOR_DAG)
        tasks = self._api.tasks(run.dag_id, run.run_id)
        return Run(len(tasks), _seconds(tasks))

    def idle_memory(self) -> float:
        """Peak memory of a task that does nothing, MiB."""
        return self._memory(self._run(_IDLE_DAG))

    def _run(self, dag_id: str, conf: dict[str, Any] | None = None) -> DagRun:
        run = self._api.trigger(dag_id, datetime.now(UTC), conf)
        run = self._api.wait_for_run(run, _RUN_SECONDS)
        if run.state != "success":
            raise StackError(f"The run {run.run_id} of {dag_id} is {run.state}.")
        return run

    def _memory(self, run: DagRun) -> float:
        """The most that a task of the run has taken, MiB."""
        notes = (self._dags / "memory").glob(f"{run.dag_id} {run.run_id} *")
        return max((int(note.read_text()) for note in notes), default=0) / 1024


@contextmanager
def running_airflow(
    folder: Path,
    server: PostgresServer,
    sink: Sink,
    sizes: Sequence[int],
    *,
    mapped_users: int = 1,
    slots: int = 2,
) -> Iterator[BenchedAirflow]:
    """Start Airflow with a source of ``sizes`` users a day, ready to be told to send; stop it at the end.

    ``folder`` holds the include folder, and gets the rest. ``slots``: how many sending tasks may run at once.
    StackError: a part does not start.
    """
    for name in DATABASES:
        server.create_database(name)
    with server.connect(APP_DATABASE) as source:
        add_users(source, sizes)
    with server.connect(LEDGER_DATABASE) as ledger:
        migrate(ledger)
    dags = folder / "dags"
    shutil.copytree(ROOT / "bench" / "airflow_dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "memory").mkdir()
    (dags / "mails.json").write_text(json.dumps(_mapped(folder / "include", mapped_users)))
    settings = Settings(
        state=folder / "airflow",
        postgres_port=server.port,
        smtp_port=sink.port,
        inbox_port=free_port(),
        airflow_port=free_port(),
    )
    processes = Processes(settings.state, settings.logs)
    airflow = AirflowProcesses(
        settings,
        processes,
        server.url,
        {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": str(max(4, slots + 2)),
        },
    )
    try:
        airflow.begin()
        airflow.finish(lambda _line: None)
        with airflow.api() as api:
            api.set_pool(POOL, slots, "Tasks that send mail at the same time")
            api.wait_for_dags((CAMPAIGN, _OPERATOR_DAG, _IDLE_DAG), seconds=120)
            yield BenchedAirflow(api, dags, server.url(LEDGER_DATABASE))
    finally:
        processes.stop(last=(API_SERVER,))


def _mapped(include: Path, users: int) -> list[dict[str, str]]:
    """What the operator is mapped over: its mails are HTML only, for it knows no text beside it."""
    message = example_message(include, CAMPAIGN)
    mail: Message = message_from_bytes(message.content)
    html = next(part for part in mail.walk() if part.get_content_type() == "text/html")
    body = html.get_payload(decode=True)
    if not isinstance(body, bytes):
        raise TypeError("the HTML of the campaign's mail has no text")
    text = body.decode()
    return [
        {
            "to": f"user{number}@example.com",
            "subject": f"Ada {number}, four days in",
            "html_content": text.replace("Ada Example", f"Ada {number}"),
        }
        for number in range(users)
    ]


def _seconds(tasks: Sequence[TaskInstance]) -> float:
    """From the start of the first to the end of the last."""
    started = [task.started for task in tasks if task.started]
    ended = [task.ended for task in tasks if task.ended]
    return (max(ended) - min(started)).total_seconds()
