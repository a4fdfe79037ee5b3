"""The whole local stack: PostgreSQL, catcher with inbox, example users, ledger and Airflow."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

from lifecycle_emails.ledger.orders import suppress
from local_stack import example_app
from local_stack.airflow_api import AirflowApi, Run
from local_stack.airflow_environment import (
    APP_DATABASE,
    DATABASES,
    LEDGER_DATABASE,
    USERNAME,
    AirflowSecrets,
    base_environment,
)
from local_stack.airflow_processes import API_SERVER, AirflowProcesses
from local_stack.errors import StackError
from local_stack.ports import require_free
from local_stack.postgres import PostgresServer
from local_stack.processes import Processes
from local_stack.settings import Settings

CATCHER = "catcher"
CAMPAIGNS = ("day4_follow_up", "day4_setup_help")
MAINTENANCE = "lifecycle_maintenance"
RUN_SECONDS = 300

Report = Callable[[str], None]


class LocalStack:
    """One stack in one folder. Its processes outlive the program that starts it, until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.postgres = PostgresServer(settings.state / "postgres", settings.postgres_port)
        self.processes = Processes(settings.state, settings.logs)

    def start(self, report: Report = print) -> AirflowProcesses:
        """Start everything, create what is missing, and return when all of it is ready.

        Whatever is left of an earlier stack in this folder is stopped first. StackError: a port is taken, or
        a part does not start; the message says which log to read.
        """
        started = time.monotonic()

        def say(text: str) -> None:
            report(f"{time.monotonic() - started:5.0f} s  {text}")

        self.stop()
        self._require_ports()
        self.postgres.start()
        for name in DATABASES:
            self.postgres.create_database(name)
        say(f"PostgreSQL 18 is up on port {self.settings.postgres_port}; starting Airflow beside the rest")
        airflow = AirflowProcesses(self.settings, self.processes, self.postgres.url)
        airflow.begin()
        self._start_catcher()
        say(self._add_users())
        say(self._migrate_ledger())
        say(self._suppress_unsubscribed())
        airflow.finish(say)
        self.processes.check(CATCHER)
        say("Airflow is healthy")
        return airflow

    def stop(self) -> None:
        """Stop everything; no process is left. No error when nothing runs."""
        self.processes.stop(last=(API_SERVER,))  # tasks tell it how they ended
        self.postgres.stop()

    def erase(self) -> None:
        """Stop everything and delete the stack's folder with all its data."""
        self.stop()
        self.postgres.remove()
        shutil.rmtree(self.settings.state, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether every process of a started stack is alive."""
        names = self.processes.names()
        return bool(names) and all(map(self.processes.is_alive, names)) and self.postgres.is_running()

    def states(self) -> dict[str, bool]:
        """Say of each part whether it is alive."""
        parts = {name: self.processes.is_alive(name) for name in self.processes.names()}
        return {"postgres": self.postgres.is_running(), **parts}

    def api(self) -> AirflowApi:
        """Return a client of the running Airflow; to be closed by the caller."""
        return AirflowApi(self.settings.airflow_url, USERNAME, AirflowSecrets.of(self.settings).password)

    def _require_ports(self) -> None:
        settings = self.settings
        require_free(settings.postgres_port, "POSTGRES_PORT")
        require_free(settings.smtp_port, "SMTP_PORT")
        require_free(settings.inbox_port, "INBOX_PORT")
        require_free(settings.airflow_port, "AIRFLOW_PORT")

    def _start_catcher(self) -> None:
        command = (
            sys.executable, "-m", "local_stack.catcher", f"--store={self.settings.mails}",
            f"--smtp-port={self.settings.smtp_port}", f"--inbox-port={self.settings.inbox_port}",
        )  # fmt: skip
        self.processes.start(CATCHER, command, base_environment(self.settings))

    def _add_users(self) -> str:
        with self.postgres.connect(APP_DATABASE) as connection:
            added = example_app.add_users(connection, datetime.now(UTC))
        return f"the example application has {added:,} new users"

    def _migrate_ledger(self) -> str:
        environment = base_environment(self.settings)
        environment["LIFECYCLE_LEDGER_DSN"] = self.postgres.url(LEDGER_DATABASE)
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle_emails", "migrate"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise StackError(f"The ledger could not be migrated: {done.stderr.strip()}")
        return f"ledger: {done.stdout.strip()}"

    def _suppress_unsubscribed(self) -> str:
        with self.postgres.connect(APP_DATABASE) as app:
            user_ids = example_app.unsubscribed_elsewhere(app)
        with psycopg.connect(self.postgres.url(LEDGER_DATABASE)) as ledger:
            new = sum(
                suppress(
                    ledger, user_id=user_id, reason="unsubscribed at the mail provider", actor="example data"
                )
                for user_id in user_ids
            )
        return f"{new} more users are suppressed in the ledger"


def send_one_day(api: AirflowApi, report: Report = print, *, maintenance: bool = True) -> list[Run]:
    """Let the scheduler send the newest day of each campaign, one campaign after the other.

    Unpausing a DAG runs its newest tick at once. What had been unpaused before is left to its schedule.
    StackError: a run has failed.
    """
    api.wait_for_dags((*CAMPAIGNS, MAINTENANCE))
    runs = []
    for campaign in CAMPAIGNS:
        api.unpause(campaign)
        run = api.wait_for_run(
            newest_scheduled(api, campaign), RUN_SECONDS, lambda line: report(f"         {line}")
        )
        report(f"         {campaign}: the run of {run.logical_date:%d %B} is a {run.state}")
        runs.append(run)
    if maintenance:
        api.unpause(MAINTENANCE)
    failed = [run.dag_id for run in runs if run.state != "success"]
    if failed:
        raise StackError(f"The run of {', '.join(failed)} has failed; its log in Airflow says why.")
    return runs


def newest_scheduled(api: AirflowApi, dag_id: str, seconds: float = 60) -> Run:
    """Wait until the scheduler has made a run, and return the newest. StackError: it makes none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = api.runs(dag_id, run_type="scheduled")
        if runs:
            return runs[-1]
        time.sleep(0.5)
    raise StackError(f"The scheduler has created no run of {dag_id} within {seconds:.0f} s of its unpausing.")
