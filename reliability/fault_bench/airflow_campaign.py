"""A campaign of one play under Airflow: its files, users, ledger and SMTP sink, and what became of them.

Copies are counted in the sink's file; who must be in doubt is worked out from the notes of the task processes
(`airflow_probe`). The ledger is asked last, and only to be compared with these.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import psycopg
import yaml

from local_stack.airflow_api import AirflowApi, Run
from local_stack.errors import StackError
from local_stack.example_app import create_table
from local_stack.ports import LOOPBACK
from reliability.fault_bench.airflow_dag_files import (
    AUDIENCE,
    CAPS,
    TEMPLATE,
    campaign_dag,
    maintenance_dag,
    zone_at_noon,
)
from reliability.fault_bench.airflow_probe import CALLBACK, CLAIMS, KILLS, NOTES, Kill, unanswered
from reliability.fault_bench.airflow_stack import AirflowStack, until
from reliability.fault_bench.fault import Observation, Setting
from tests.scripted_smtp_server import ScriptedSmtpServer
from tests.smtp_script import Accept, Delay, Queued

RUN_SECONDS = 900
OFFSET_DAYS = 4
CONNECTIONS = 2
FINAL = ("sent", "held", "rejected", "in_doubt")


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


class AirflowCampaign:
    """One campaign with everything that it needs. Made and cleaned up by `airflow_campaign`."""

    def __init__(
        self, stack: AirflowStack, setting: Setting, server: ScriptedSmtpServer, **fields: Any
    ) -> None:
        self.stack = stack
        self.setting = setting
        self.server = server
        self.folder = setting.folder
        self.id = f"play_{next(stack.plays)}_{os.getpid()}"
        self.zone = zone_at_noon()
        self.today = datetime.now(ZoneInfo(self.zone)).date()
        self.include = self.folder / "include"
        self.dags: list[tuple[AirflowStack, str]] = []
        self.users: dict[str, date] = {}
        self._databases = {name: f"{self.id}_{name}" for name in ("ledger", "source")}
        (self.folder / CLAIMS).mkdir(exist_ok=True)
        self.write_campaign(**fields)
        self.write("audiences/users.sql", AUDIENCE)
        self.write("frequency_caps.yaml", yaml.safe_dump(CAPS))
        for name, text in TEMPLATE.items():
            self.write(f"templates/{self.id}/{name}", text.replace("CAMPAIGN", self.id))

    @property
    def api(self) -> AirflowApi:
        """Airflow's API."""
        return self.stack.api

    def set_up(self) -> None:
        """Create databases and connections. Without a DAG file nothing runs yet."""
        for name in self._databases.values():
            self.setting.postgres.create_database(name)
        with self.source() as source:
            create_table(source)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.setting.tree),
            "LIFECYCLE_LEDGER_DSN": self.ledger_url,
        }
        command = [sys.executable, "-m", "lifecycle_emails", "migrate"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"the ledger of {self.id} could not be migrated: {done.stderr}")
        self.connect(self.stack)

    def connect(self, stack: AirflowStack) -> None:
        """Tell an Airflow the connections of this campaign."""
        port, password = self.setting.postgres.port, self.setting.postgres.password
        for name, database in self._databases.items():
            stack.api.set_connection(
                f"{self.id}_{name}", "postgres", host=LOOPBACK, port=port, schema=database, login="postgres",
                password=password,
            )  # fmt: skip
        extra = {"disable_tls": True, "disable_ssl": True, "dot_timeout": 60}
        stack.api.set_connection(
            f"{self.id}_smtp", "smtp", host=LOOPBACK, port=self.server.port, extra=json.dumps(extra)
        )

    def clean_up(self) -> None:
        """Remove DAG files, end what still runs, drop the databases."""
        for stack, dag_id in self.dags:
            (stack.dags / f"{dag_id}.py").unlink(missing_ok=True)
            with contextlib.suppress(StackError):
                stack.api.pause(dag_id)
                for run in stack.api.runs(dag_id):
                    if not run.ended:
                        stack.api.mark_run(run, "failed")
        for name in self._databases.values():
            self.setting.postgres.drop_database(name)

    # Files

    def write(self, name: str, text: str) -> None:
        """Write a file of the include folder."""
        path = self.include / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_campaign(self, **fields: Any) -> None:
        """Write the campaign's file; ``fields`` beside or instead of the usual ones."""
        usual = {
            "id": self.id, "schedule": "0 0 * * *", "timezone": self.zone, "offset_days": OFFSET_DAYS,
            "audience": "users.sql", "from": "The team <hello@example.com>",
            "connections": CONNECTIONS, "batch_size": 100, "volume": "off",
            "source_conn_id": f"{self.id}_source", "smtp_conn_id": f"{self.id}_smtp",
        }  # fmt: skip
        self.write(f"campaigns/{self.id}.yaml", yaml.safe_dump({**usual, **fields}, sort_keys=False))

    def plan_kills(self, kills: Sequence[Kill]) -> None:
        """Say where processes are to be killed, one after the other."""
        (self.folder / KILLS).write_text(json.dumps([asdict(kill) for kill in kills]))

    def let_callback_fail(self, times: int) -> None:
        """Let the callback raise the first so many times."""
        (self.folder / CALLBACK).write_text(json.dumps({"failures": times}))

    def add_dag(
        self,
        dag_id: str | None = None,
        *,
        retries: int = 4,
        send_timeout: timedelta = timedelta(hours=2),
        days_back: float = 1,
        stack: AirflowStack | None = None,
    ) -> str:
        """Write a DAG file; its newest tick runs at once when ``days_back`` allows. Returns the DAG id."""
        dag_id = dag_id or self.id
        start = datetime.now(UTC) - timedelta(days=days_back)
        text = campaign_dag(
            self.setting.tree, self.folder, self.id, dag_id,
            start=start, retries=retries, send_timeout=send_timeout,
        )  # fmt: skip
        self._write_dag(dag_id, text, stack or self.stack)
        return dag_id

    def add_maintenance(self) -> str:
        """Write the file of a maintenance DAG that runs when it is triggered."""
        dag_id = f"{self.id}_maintenance"
        text = maintenance_dag(self.setting.tree, self.folder, self.id, dag_id)
        self._write_dag(dag_id, text, self.stack)
        self.api.wait_for_dags([dag_id], RUN_SECONDS)
        return dag_id

    def _write_dag(self, dag_id: str, text: str, stack: AirflowStack) -> None:
        unfinished = stack.folder / f"{dag_id}.py"
        unfinished.write_text(text)
        unfinished.rename(stack.dags / unfinished.name)  # read whole or not at all
        self.dags.append((stack, dag_id))

    # People

    def cohort(self, days_ago: int = 0) -> date:
        """The cohort that is due today, or was so some days ago."""
        return self.today - timedelta(days=OFFSET_DAYS + days_ago)

    def add_users(self, count: int, days_ago: int = 0, *, expected: bool = True) -> list[str]:
        """Add users created about noon of a cohort's day. ``expected``: each must get a row in the ledger."""
        first = 1 + len(self.users)
        day = self.cohort(days_ago)
        created_at = datetime.combine(day, time(12, 30), ZoneInfo(self.zone))
        ids = [str(number) for number in range(first, first + count)]
        with self.source() as source, source.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO users (user_id, email, full_name, created_at) VALUES (%s, %s, %s, %s)",
                [(int(user), f"user{user}@example.com", f"Ada {user}", created_at) for user in ids],
            )
        if expected:
            self.users |= dict.fromkeys(ids, day)
        return ids

    @property
    def ledger_url(self) -> str:
        """Connection URL of the play's ledger."""
        return self.setting.postgres.url(self._databases["ledger"])

    @property
    def source_url(self) -> str:
        """Connection URL of the play's users."""
        return self.setting.postgres.url(self._databases["source"])

    def ledger(self) -> psycopg.Connection[Any]:
        """A connection to the play's ledger, to be closed by the caller."""
        return psycopg.connect(self.ledger_url, autocommit=True)

    def source(self) -> psycopg.Connection[Any]:
        """A connection to the play's users."""
        return psycopg.connect(self.source_url, autocommit=True)

    # Runs

    def scheduled(
        self, dag_id: str | None = None, *, stack: AirflowStack | None = None, seconds: float = RUN_SECONDS
    ) -> Run:
        """Wait for the run that the scheduler creates of the newest tick."""
        api, found = (stack or self.stack).api, list[Run]()

        def created() -> bool:
            with contextlib.suppress(StackError):  # not known yet
                found[:] = api.runs(dag_id or self.id, run_type="scheduled")
            return bool(found)

        try:
            until(created, seconds, f"the scheduler has created no run of {dag_id or self.id}")
        except StackError as error:
            raise StackError("\n".join([str(error), *api.import_errors()])) from None
        return found[-1]

    def wait(self, *runs: Run, seconds: float = RUN_SECONDS) -> list[Run]:
        """Wait until runs have ended; doubts that a kill has left are made to fall due meanwhile."""
        ended: dict[tuple[str, str], Run] = {}

        def all_ended() -> bool:
            for run in runs:
                if (run.dag_id, run.run_id) not in ended:
                    with contextlib.suppress(StackError):  # the API server may be away
                        now = self.api.run(run.dag_id, run.run_id)
                        if now.ended:
                            ended[run.dag_id, run.run_id] = now
            self.let_time_pass_for_the_dead()
            return all((run.dag_id, run.run_id) in ended for run in runs)

        try:
            until(all_ended, seconds, f"runs of {self.id} have not ended")
        except StackError as error:
            raise StackError(f"{error}: {self._progress(runs)}") from None
        return [ended[run.dag_id, run.run_id] for run in runs]

    def _progress(self, runs: Iterable[Run]) -> str:
        with contextlib.suppress(StackError):
            tasks = [task for run in runs for task in self.api.tasks(run.dag_id, run.run_id)]
            return ", ".join(
                f"{task.task_id}[{task.map_index}] {task.state} try {task.try_number}" for task in tasks
            )
        return "Airflow does not answer"

    def backfill(self, dag_id: str, first: datetime, last: datetime, reprocess: str = "none") -> list[Run]:
        """Create a backfill; Airflow refuses it while an earlier one of the DAG is not closed."""
        runs: list[Run] = []

        def accepted() -> bool:
            try:
                runs[:] = self.api.backfill(dag_id, first, last, reprocess=reprocess, max_active_runs=3)
            except StackError as refused:
                if "already a running backfill" not in str(refused):
                    raise
                return False
            return True

        until(accepted, 60, f"Airflow goes on to refuse a backfill of {dag_id}")
        return [self.api.run(run.dag_id, run.run_id) for run in runs]

    def let_time_pass_for_the_dead(self) -> None:
        """Let the leases of dead processes end, and the answers they awaited fall due.

        In production that is a minute and a dot's time-out. Nothing else of the ledger grows older.
        """
        dead = {pid for note in self.notes("began") if not _is_alive(pid := note["pid"])}
        holders = [note["holder"] for note in self.notes("began") if note["pid"] in dead]
        users = [user for user, pid in self.unanswered().items() if pid in dead]
        if not dead:
            return
        with self.ledger() as ledger:
            ledger.execute(
                "UPDATE lifecycle.batches SET lease_until = now() - interval '1 second'"
                " WHERE lease_holder = ANY (%s::uuid[]) AND lease_until > now()",
                (holders,),
            )
            ledger.execute(
                "UPDATE lifecycle.sends SET answer_due = now() - interval '1 second'"
                " WHERE user_id = ANY (%s) AND state = 'sending' AND answer_due > now()",
                (users,),
            )

    # What was seen

    def notes(self, *events: str) -> list[dict[str, Any]]:
        """What the task processes noted, in order."""
        path = self.folder / NOTES
        lines = path.read_text().splitlines() if path.exists() else []
        notes = [json.loads(line) for line in lines]
        return [note for note in notes if not events or note["event"] in events]

    def unanswered(self) -> dict[str, int]:
        """Users gated by a process that recorded no outcome, or only that it is in doubt; with its id."""
        return unanswered(self.notes("passed", "recorded"))

    def copies(self) -> Counter[str]:
        """Accepted mails by user, from the sink's file."""
        path = self.folder / "accepted.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(json.loads(line)["user_id"] for line in lines)

    def states(self) -> dict[str, str]:
        """State of every user in the ledger, with the reason behind a slash for the held."""
        with self.ledger() as ledger:
            rows = ledger.execute(
                "SELECT user_id, concat_ws('/', state::text, held_reason::text) FROM lifecycle.sends"
                " WHERE campaign = %s",
                (self.id,),
            )
            return dict(rows.fetchall())

    def missing_cohorts(self) -> set[str]:
        """Cohorts that alerts report as never planned."""
        with self.ledger() as ledger:
            rows = ledger.execute("SELECT facts FROM lifecycle.alerts WHERE kind = 'missing_cohorts'")
            return {day for (facts,) in rows for day in facts["cohort_dates"]}

    def tries(self, *runs: Run) -> int:
        """How many processes tried to send in these runs."""
        tasks = [task for run in runs for task in self.api.tasks(run.dag_id, run.run_id)]
        return sum(task.try_number for task in tasks if task.task_id == "send_batch")

    def observe(self, runs: int, problems: Iterable[str] = (), *, killed: int = 0) -> Observation:
        """Compare sink, notes and ledger; ``killed``: processes that the play itself has killed."""
        copies, states, doubts = self.copies(), self.states(), self.unanswered()
        lost = [
            user
            for user in self.users
            if states.get(user, "").split("/")[0] not in FINAL
            or (states[user] == "sent" and not copies[user])
        ]
        found = [*problems]
        doubted = {user for user, state in states.items() if state == "in_doubt"}
        if doubted != set(doubts):
            found.append(f"in doubt are {sorted(doubted)[:5]}, must be {sorted(doubts)[:5]}")
        unknown = [user for user in copies if states.get(user) not in {"sent", "in_doubt"}]
        if unknown:
            found.append(f"accepted, and not so in the ledger: {sorted(unknown)[:5]}")
        kills = self.notes("killed", "supervisor_killed")
        return Observation(
            runs=runs,
            kills=killed + sum(2 if note["target"] == "both" else 1 for note in kills),
            max_copies=max(copies.values(), default=0),
            lost=len(lost),
            in_doubt=len(doubted),
            in_doubt_expected=len(doubts),
            problems=tuple(found),
            kill_points=Counter(f"airflow {note['target']}: {note['point']}" for note in kills),
        )


@contextmanager
def airflow_campaign(
    stack: AirflowStack, setting: Setting, *, dot_delay: float = 0.0, **fields: Any
) -> Iterator[AirflowCampaign]:
    """A campaign for one play; ``dot_delay`` is how long the SMTP server takes for its answer to the dot."""
    with ScriptedSmtpServer(record=setting.folder / "accepted.jsonl") as server:
        if dot_delay:
            server.on("dot", Accept(), Delay(dot_delay), Queued())
        campaign = AirflowCampaign(stack, setting, server, **fields)
        try:
            campaign.set_up()
            yield campaign
        finally:
            campaign.clean_up()


def until_noted(campaign: AirflowCampaign, event: str, times: int = 1, seconds: float = RUN_SECONDS) -> None:
    """Wait until the task processes have noted an event so often."""
    until(lambda: len(campaign.notes(event)) >= times, seconds, f"{event} was not noted {times} times")
