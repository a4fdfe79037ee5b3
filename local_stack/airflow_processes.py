"""Airflow with LocalExecutor, as separate processes: API server, scheduler and DAG processor.

No triggerer: no task of the project defers. No log server: the API server reads the logs from the same disk.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version

import httpx

from local_stack.airflow_api import AirflowApi
from local_stack.airflow_environment import (
    METADATA_DATABASE,
    USERNAME,
    AirflowSecrets,
    DatabaseUrl,
    airflow_environment,
    write_private,
)
from local_stack.airflow_health import START_SECONDS, wait_until_healthy
from local_stack.processes import Processes
from local_stack.settings import Settings

POOL = "lifecycle_emails"
POOL_SLOTS = 2

API_SERVER, SCHEDULER, DAG_PROCESSOR = "airflow-api-server", "airflow-scheduler", "airflow-dag-processor"
MIGRATION = "airflow-db-migrate"
COMMANDS = {
    API_SERVER: ("api-server",),
    SCHEDULER: ("scheduler", "--skip-serve-logs"),
    DAG_PROCESSOR: ("dag-processor",),
}
HEALTH_NAMES = {API_SERVER: "metadatabase", SCHEDULER: "scheduler", DAG_PROCESSOR: "dag_processor"}

Report = Callable[[str], None]


class AirflowProcesses:
    """One Airflow. Its processes are among the stack's, and are stopped with them."""

    def __init__(
        self,
        settings: Settings,
        processes: Processes,
        database_url: DatabaseUrl,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; nothing is started.

        :param changes: environment variables that differ from the stack's usual ones
        """
        self._settings = settings
        self._processes = processes
        self._environment = {**airflow_environment(settings, database_url), **(changes or {})}
        self._migrated = settings.state / "airflow" / f"migrated-{version('apache-airflow-core')}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of an ``airflow`` or ``lifecycle`` command that is to work on this stack."""
        return dict(self._environment)

    def api(self) -> AirflowApi:
        """Return a client that logs in as the administrator; to be closed by the caller."""
        return AirflowApi(self._settings.airflow_url, USERNAME, AirflowSecrets.of(self._settings).password)

    def begin(self) -> None:
        """Start what takes longest, beside whatever the caller does meanwhile: API server and metadata."""
        # The API server needs no metadata until it is asked something, so it does not have to wait for them.
        unchecked = {**self._environment, "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False"}
        self._start_with(API_SERVER, unchecked)
        if not self._migrated.exists():
            command = (sys.executable, "-m", "airflow", "db", "migrate")
            self._processes.start(MIGRATION, command, self._environment)

    def finish(self, report: Report) -> None:
        """Start the rest after `begin`, and wait until all of it is healthy and quick to answer.

        StackError: a process has ended, or is not healthy in time; the message names the log to read.
        """
        if not self._migrated.exists():
            if self._processes.wait(MIGRATION) != 0:
                self._processes.check(MIGRATION)
            self._processes.forget(MIGRATION)
            write_private(self._migrated, METADATA_DATABASE)
        self.start(SCHEDULER)
        self.start(DAG_PROCESSOR)
        self.wait_until_healthy(report)
        # The part of the API that tasks use is built when it is first asked, which takes seconds.
        httpx.get(f"{self._settings.airflow_url}/execution/health", timeout=START_SECONDS).raise_for_status()
        with self.api() as api:
            api.set_pool(POOL, POOL_SLOTS, "Tasks that send mail at the same time")

    def check(self) -> None:
        """Raise StackError with the end of its log when a process has ended."""
        for name in COMMANDS:
            self._processes.check(name)

    def start(self, name: str) -> None:
        """Start one of the processes, for the first time or after it was killed."""
        self._start_with(name, self._environment)

    def _start_with(self, name: str, environment: dict[str, str]) -> None:
        command = (sys.executable, "-m", "local_stack.airflow_component", *COMMANDS[name])
        self._processes.start(name, command, environment)

    def wait_until_healthy(self, report: Report) -> None:
        """Wait until every process has given a sign of life since now. StackError: one has not."""
        wait_until_healthy(self._processes, self.api, HEALTH_NAMES, report)
