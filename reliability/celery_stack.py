"""Airflow on Celery as docker-compose.yaml describes it, as processes of this machine, without Docker.

Commands, environment and number of replicas are read from the file. What differs, and has to:

- host names are loopback ports, and the image's home folder is one of the stack's;
- a worker is given a name (`--celery-hostname`) and a port for its logs, as its container would be;
- the triggerer's logs get a port too;
- PostgreSQL 18 is the embedded one; Redis keeps nothing on disk; the SMTP catcher stands for Mailpit.
"""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from celery import Celery  # type: ignore[import-untyped]
from psycopg import sql

from local_stack import example_app
from local_stack.airflow_api import AirflowApi, Run
from local_stack.airflow_environment import APP_DATABASE, USERNAME, AirflowSecrets, base_environment
from local_stack.airflow_health import wait_until_healthy
from local_stack.errors import StackError
from local_stack.mail_store import MailStore
from local_stack.ports import LOOPBACK, free_port
from local_stack.postgres import PostgresServer
from local_stack.processes import Processes
from local_stack.settings import Settings
from local_stack.stack import newest_scheduled
from reliability.compose import IMAGE_HOME, PROJECT, Service, local_service, read_compose
from reliability.redis_server import start_redis

CAMPAIGN = "day4_follow_up"
OFFSET_DAYS = 4
IMAGE_FOLDERS = ("dags", "include", "plugins")
MIGRATION = "migrate"
HEALTH = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
START_SECONDS = 300
COMPOSE_USER = "airflow"

_USERS = Path(__file__).with_name("example_cohort.sql").read_bytes()

Report = Callable[[str], None]


@dataclass(frozen=True)
class Changes:
    """What a run tells the stack beyond docker-compose.yaml.

    `environment` is for every Airflow service, `smtp` is added to the SMTP connection's query.
    """

    environment: Mapping[str, str]
    smtp: str = ""


AS_COMPOSED = Changes({})


class CeleryStack:
    """One stack in one folder, on free ports. Its processes are the folder's until `stop`."""

    def __init__(self, folder: Path, changes: Changes = AS_COMPOSED) -> None:
        """Describe it; nothing is started."""
        self.settings = Settings(
            state=folder,
            postgres_port=free_port(),
            smtp_port=free_port(),
            inbox_port=free_port(),
            airflow_port=free_port(),
        )
        self.processes = Processes(folder, self.settings.logs)
        self.postgres = PostgresServer(folder / "postgres", self.settings.postgres_port)
        self.home = folder / "airflow"
        self.workers: list[str] = []
        self._changes = changes
        self._compose = read_compose()
        self._redis_port = free_port()
        self._tick = datetime.now(UTC) - timedelta(hours=1)

    def start_servers(self, *, answer_after: float = 0.0) -> None:
        """Start PostgreSQL, Redis and the catcher, on empty data. StackError: one does not start.

        :param answer_after: seconds that the catcher takes to answer a mail's final dot
        """
        self.erase()
        self.postgres.start()
        with self.postgres.connect() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                    sql.Identifier(COMPOSE_USER), sql.Literal(self._secrets.password)
                )
            )
        for name in (self._metadata_database, self._ledger_database, APP_DATABASE):
            self.postgres.create_database(name)
        start_redis(self.processes, self._redis_port, self._secrets.password, base_environment(self.settings))
        self.start_catcher("catcher", self.settings.mails, self.settings.smtp_port, answer_after)

    def start_catcher(self, name: str, store: Path, port: int, answer_after: float = 0.0) -> None:
        """Start one more catcher among the stack's processes, with a store of its own."""
        inbox = self.settings.inbox_port if port == self.settings.smtp_port else free_port()
        command = (
            sys.executable, "-m", "local_stack.catcher", f"--store={store}", f"--smtp-port={port}",
            f"--inbox-port={inbox}", f"--answer-after={answer_after}",
        )  # fmt: skip
        self.processes.start(name, command, base_environment(self.settings))

    def build_image(self, campaign: Mapping[str, object]) -> None:
        """Copy what the image holds; the campaign's file says what `campaign` says.

        The schedule's hour is an hour ago: the newest tick is due at once, and the next one is a day away.
        """
        for folder in IMAGE_FOLDERS:
            shutil.copytree(
                PROJECT / folder, self.home / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        file = self.home / "include" / "campaigns" / f"{CAMPAIGN}.yaml"
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        values |= {"schedule": f"{self._tick.minute} {self._tick.hour} * * *", **campaign}
        file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")

    def add_users(self, users: int) -> date:
        """Add the users of the newest tick's cohort, numbered from 1; return the cohort's date."""
        day = self._tick.date() - timedelta(days=OFFSET_DAYS)
        with self.postgres.connect(APP_DATABASE) as app:
            example_app.create_table(app)
            app.execute(_USERS, {"users": users, "day": day.isoformat()})
            app.execute("ANALYZE users")
        return day

    def begin(self) -> None:
        """Start the job that all others wait for: the migrations of metadata and ledger."""
        self._start(MIGRATION, self._service(MIGRATION))

    def finish(self, report: Report) -> None:
        """Start every service after `begin`, and wait until all are healthy. StackError: one is not."""
        if self.processes.wait(MIGRATION) != 0:
            self.processes.check(MIGRATION)
        self.processes.forget(MIGRATION)
        report("metadata and ledger are migrated; starting API server, scheduler, DAG processor, triggerer")
        for name in HEALTH:
            self._start(name, self._service(name))
        for _ in range(self._service("worker").replicas):
            self.start_worker()
        wait_until_healthy(self.processes, self.api, HEALTH, report, START_SECONDS)
        self._wait_for_workers()
        # The part of the API that tasks use is built when it is first asked, which takes seconds.
        httpx.get(f"{self.settings.airflow_url}/execution/health", timeout=START_SECONDS).raise_for_status()
        report(f"Airflow is healthy, {' and '.join(self.workers)} answer through Redis")

    def start_worker(self) -> str:
        """Start one more Celery worker, and return its name."""
        name = f"worker-{len(self.workers) + 1}"
        service = self._service("worker")
        self._start(
            name,
            Service(
                (*service.command, "--celery-hostname", name),
                service.environment | {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())},
                1,
            ),
        )
        self.workers.append(name)
        return name

    def run_day(self) -> Run:
        """Let the scheduler make the run of the newest tick, and return it as it begins."""
        with self.api() as api:
            api.wait_for_dags([CAMPAIGN], START_SECONDS)
            api.unpause(CAMPAIGN)
            return newest_scheduled(api, CAMPAIGN, START_SECONDS)

    def check(self) -> None:
        """Raise StackError with the end of its log when a process has ended."""
        for name in self.processes.names():
            self.processes.check(name)

    def stop(self) -> None:
        """Stop everything; no process is left. No error when nothing runs."""
        self.processes.stop(last=("api-server",))  # tasks tell it how they ended
        self.postgres.stop()

    def erase(self) -> None:
        """Stop everything and delete the stack's folder with all its data."""
        self.stop()
        self.postgres.remove()
        shutil.rmtree(self.settings.state, ignore_errors=True)
        self.postgres = PostgresServer(self.settings.state / "postgres", self.settings.postgres_port)

    def api(self) -> AirflowApi:
        """Return a client of the running Airflow; to be closed by the caller."""
        return AirflowApi(self.settings.airflow_url, USERNAME, self._secrets.password)

    def ledger(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection to the ledger."""
        return self.postgres.connect(self._ledger_database)

    def mails(self) -> MailStore:
        """Give what the catcher has accepted."""
        return MailStore(self.settings.mails)

    def broker(self, database: int = 0) -> str:
        """Give the broker's URL; another application than Airflow has another database of the same Redis."""
        return f"redis://:{self._secrets.password}@{LOOPBACK}:{self._redis_port}/{database}"

    @property
    def _secrets(self) -> AirflowSecrets:
        return AirflowSecrets.of(self.settings)

    @property
    def _metadata_database(self) -> str:
        return str(self._compose["services"]["postgres"]["environment"]["POSTGRES_DB"])

    @property
    def _ledger_database(self) -> str:
        statement = str(self._compose["configs"]["ledger_database"]["content"])
        return statement.removeprefix("CREATE DATABASE ").rstrip(";")

    def _service(self, name: str) -> Service:
        known = self._secrets
        answers = {
            "AIRFLOW_ADMIN_PASSWORD": known.password,
            "AIRFLOW_FERNET_KEY": known.fernet_key,
            "AIRFLOW_JWT_SECRET": known.jwt_secret,
            "AIRFLOW_SECRET_KEY": known.secret_key,
            "LIFECYCLE_SMTP": (
                f"smtp://{LOOPBACK}:{self.settings.smtp_port}/?disable_ssl=true&disable_tls=true"
                + self._changes.smtp
            ),
            "LIFECYCLE_SOURCE": self.postgres.url(APP_DATABASE),
            "POSTGRES_PASSWORD": known.password,
            "REDIS_PASSWORD": known.password,
        }
        places = {
            "api-server:8080": f"{LOOPBACK}:{self.settings.airflow_port}",
            "--host 0.0.0.0 --port 8080": f"--host {LOOPBACK} --port {self.settings.airflow_port}",
            "@postgres:5432": f"@{LOOPBACK}:{self.settings.postgres_port}",
            "@redis:6379": f"@{LOOPBACK}:{self._redis_port}",
            IMAGE_HOME: str(self.home),
        }
        return local_service(self._compose, name, answers, places)

    def _start(self, name: str, service: Service) -> None:
        of_image = {"AIRFLOW_HOME": str(self.home), "PYTHONPATH": str(self.home / "plugins")}
        ports = {"AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port())}
        environment = {
            **base_environment(self.settings),
            **of_image,
            **ports,
            **service.environment,
            **self._changes.environment,
        }
        self.processes.start(name, service.command, environment)

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        waiting = set(self.workers)
        with Celery(broker=self.broker()) as asking:
            while waiting:
                for name in waiting:
                    self.processes.check(name)
                if time.monotonic() > deadline:
                    raise StackError(f"{', '.join(sorted(waiting))} did not answer in {START_SECONDS} s.")
                for answer in asking.control.ping(timeout=1):
                    waiting -= {node.partition("@")[2] for node in answer}
