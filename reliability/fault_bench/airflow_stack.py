"""One real Airflow for all rows that need one: scheduler, API server, DAG processor and tasks as processes.

Started when the first row asks for it, stopped when the program ends. Each play has databases, connections,
an include folder and DAG files of its own in it. It must not know what a play does with them.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import psutil

from local_stack.airflow_api import AirflowApi
from local_stack.airflow_environment import METADATA_DATABASE
from local_stack.airflow_processes import API_SERVER, POOL, SCHEDULER, AirflowProcesses
from local_stack.errors import StackError
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer
from local_stack.processes import Processes
from local_stack.settings import Settings

PARALLELISM = 6
HEARTBEAT_TIMEOUT = 12
"""Seconds without a sign of life after which Airflow takes a task for dead; five minutes by default."""

# Airflow's own delays, shortened as far as its promises stay the same: what takes minutes in production takes
# seconds here. Nothing of the package is set.
QUICK = {
    "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "120",
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "90",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(HEARTBEAT_TIMEOUT),
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "4",
}
"""Environment of every Airflow of the bench."""


class AirflowStack:
    """One Airflow with a metadata database of its own on a given Postgres server."""

    def __init__(self, postgres: PostgresServer, name: str, changes: Mapping[str, str]) -> None:
        """Start it; ready for DAG files on return. StackError: a part does not start.

        :param changes: settings of this one alone
        """
        self.postgres = postgres
        self.folder = Path(tempfile.mkdtemp(prefix="lifecycle-fault-bench-"))
        self.dags = self.folder / "dags"
        self.dags.mkdir()
        self.plays = itertools.count(1)
        self._orphans: list[psutil.Process] = []
        settings = Settings(
            state=self.folder,
            postgres_port=postgres.port,
            smtp_port=free_port(),
            inbox_port=free_port(),
            airflow_port=free_port(),
        )
        self.url = settings.airflow_url
        self._metadata = f"fault_bench_{name}"
        postgres.drop_database(self._metadata)
        postgres.create_database(self._metadata)
        self._processes = Processes(self.folder, self.folder / "logs")
        self._airflow = AirflowProcesses(
            settings,
            self._processes,
            self._database_url,
            {**QUICK, "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags), **changes},
        )
        self.api: AirflowApi = self._airflow.api()
        try:
            self._airflow.begin()
            self._airflow.finish(lambda _line: None)
            self.api.set_pool(POOL, PARALLELISM, "Tasks that send mail at the same time")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every process, drop the metadata, delete the folder. No error when that has been done."""
        self.api.close()
        for orphan in self._orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (*orphan.children(recursive=True), orphan):
                    process.kill()
        self._processes.stop(last=(API_SERVER,))
        with contextlib.suppress(Exception):  # the server may be gone with the program that ends
            self.postgres.drop_database(self._metadata)
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, name: str) -> None:
        """SIGKILL one of the long-lived processes and nothing else: what it has started goes on as it is."""
        process = psutil.Process(self._processes.pid(name))
        self._orphans += process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        until(lambda: not self._processes.is_alive(name), 20, f"{name} is still there after SIGKILL")

    def kill_api_server(self) -> None:
        """SIGKILL the API server with all its workers, so that nobody answers on its port."""
        self._processes.kill(API_SERVER)

    def start_again(self, name: str) -> None:
        """Start a killed process again, and return when it works."""
        self._airflow.start(name)
        if name == API_SERVER:
            until(self._answers, 300, "the API server does not answer again")
        else:
            self._airflow.wait_until_healthy(lambda _line: None)

    def _answers(self) -> bool:
        with contextlib.suppress(StackError, httpx.HTTPError):
            self.api.dag_ids()
            return True
        return False

    def _database_url(self, name: str) -> str:
        return self.postgres.url(self._metadata if name == METADATA_DATABASE else name)


_running: dict[str, AirflowStack] = {}
_starting = threading.Lock()


def airflow_stack(
    postgres: PostgresServer, name: str = "airflow", changes: Mapping[str, str] | None = None
) -> AirflowStack:
    """Give the Airflow of this name, started on the first call; it is stopped when the program ends."""
    with _starting:
        if name not in _running:
            _running[name] = AirflowStack(postgres, name, changes or {})
        return _running[name]


def stop_airflow_stacks() -> None:
    """Stop every Airflow of the bench; before its Postgres server, or else at the program's end."""
    while _running:
        _, stack = _running.popitem()
        stack.stop()


atexit.register(stop_airflow_stacks)


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until the condition holds. StackError says ``otherwise`` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{otherwise} ({seconds:.0f} s)")
        time.sleep(0.1)


__all__ = ["API_SERVER", "SCHEDULER", "AirflowStack", "airflow_stack", "stop_airflow_stacks", "until"]
