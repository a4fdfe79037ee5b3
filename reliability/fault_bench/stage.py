"""Where a play takes place: a database, a campaign's files, a sink, and the processes that work there.

Knows how to set everything up, start processes and read what became of the mails: the copies from the sink's
file, the states from the ledger. What should have become of them is for the play to say.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from local_stack import example_app
from local_stack.postgres import PostgresServer
from reliability.fault_bench.points import left_open, read_journal, unanswered_dots
from reliability.fault_bench.processes import BenchError, NetworkProcess, Process, ProcessServer
from reliability.fault_bench.sink import DOUBTFUL, REJECTING_MODES, SinkPlan

CAMPAIGN = "welcome"
BODY = """\
Hello {{ full_name }},

we are glad that you are here.
.
..
Reference: {{ campaign }}/{{ user_id }}
"""
HTML = "<p>Hello {{ full_name }}</p>\n<p>Reference: {{ campaign }}/{{ user_id }}</p>\n"
AUDIENCE = """\
SELECT user_id, email, full_name FROM users
WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s
"""
FINAL = ("sent", "rejected", "held", "in_doubt")
FILLED_BY_MIGRATIONS = ("migrations", "installation", "known_server")
"""Tables that a play's ledger keeps: they say what it is, not what happened in it."""
DAILY = ("extract", "filter", "limit", "send")
LATER = timedelta(minutes=25)
"""Passes between two runs: longer than a lease, the first pauses after a refusal, and a short answer_due."""

_numbers = itertools.count(1)


def cohort_date() -> date:
    """The cohort whose mail is due today."""
    return (datetime.now(UTC) - timedelta(days=4)).date()


@dataclass
class Mails:
    """What became of the mails, by (campaign, user id): copies from the sink's file, states of the ledger."""

    copies: Counter[tuple[str, str]]
    doubtful_dots: set[str]
    """Users whose dot reached the sink and got no readable answer."""
    rejections: set[str]
    """Users of whom the sink said that they do not exist."""
    broken_bodies: set[str]
    """Users in the middle of whose body the sink ended the connection."""
    states: dict[tuple[str, str], str]
    """State, for the held with the reason behind a slash."""

    @property
    def max_copies(self) -> int:
        """The most copies of one campaign to one user."""
        return max(self.copies.values(), default=0)

    def in_state(self, state: str) -> set[str]:
        """Users in a state, in whatever campaign."""
        return {user for (_, user), value in self.states.items() if value.split("/")[0] == state}

    def lost(self, keys: Iterable[tuple[str, str]]) -> list[str]:
        """Which of these have no row, no final state or reason, or are called sent and were not accepted."""
        found = []
        for key in keys:
            state = self.states.get(key, "no row")
            if state.split("/")[0] not in FINAL or (state == "sent" and not self.copies[key]):
                found.append(f"user {key[1]} of {key[0]}: {state}, {self.copies[key]} accepted")
        return found


@dataclass
class Stage:
    """A place for plays, one after another: `clear` makes it empty again."""

    folder: Path
    postgres: PostgresServer
    server: ProcessServer
    network: NetworkProcess
    database: str
    port: int | None = None
    """Another port to reach the ledger at: a proxy's."""
    smtp: dict[str, Any] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    not_reached: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    left_open: set[str] = field(default_factory=set)
    """Users whose process was killed after they passed the gate and before their outcome was committed."""
    unanswered: set[str] = field(default_factory=set)
    """Users whose dot was written by a process that was given no answer to it."""
    _sink: int | None = None
    _files: Path = Path()

    def __post_init__(self) -> None:
        self.include = self.folder / "include"
        self.write_campaign(CAMPAIGN)
        self.ledger: psycopg.Connection[Any] = self.postgres.connect(self.database)
        self.clear()

    # --- the past and the surroundings --------------------------------------------------------------------

    def clear(self) -> None:
        """Empty the ledger and the source, begin new files: far cheaper than a new database."""
        self.close_sink()
        self.port, self.smtp, self.runs = None, {}, 0
        self.kills, self.not_reached = Counter(), Counter()
        self.left_open, self.unanswered = set(), set()
        shutil.rmtree(self._files) if self._files != Path() else None
        self._files = self.folder / f"play_{next(_numbers)}"
        self._files.mkdir()
        tables = self.ledger.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'lifecycle'"
            " AND table_type = 'BASE TABLE' AND table_name <> ALL (%s)",
            (list(FILLED_BY_MIGRATIONS),),
        ).fetchall()
        names = ", ".join(f"lifecycle.{name}" for (name,) in tables)
        self.ledger.execute(
            "SET session_replication_role = replica;"
            f" TRUNCATE {names}, users RESTART IDENTITY;"
            " SET session_replication_role = origin".encode()
        )

    def write_campaign(self, campaign: str, **fields: Any) -> None:
        """A campaign's file, audience and templates."""
        values = {
            "id": campaign, "schedule": "0 6 * * *", "timezone": "UTC", "offset_days": 4,
            "audience": "users.sql", "from": "The team <hello@example.com>", "connections": 1,
            "batch_size": 100, **fields,
        }  # fmt: skip
        self.write(f"campaigns/{campaign}.yaml", json.dumps(values))
        self.write("audiences/users.sql", AUDIENCE)
        self.write("frequency_caps.yaml", "default:\n  many:\n    max_sends: 1000\n    window: 1 day\n")
        self.write(f"templates/{campaign}/subject.txt.j2", "Hello {{ full_name }}")
        self.write(f"templates/{campaign}/body.txt.j2", BODY)
        self.write(f"templates/{campaign}/body.html.j2", HTML)

    def write(self, name: str, text: str) -> None:
        """A file of the include folder."""
        path = self.include / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def add_users(self, count: int, *, first: int = 1, day: date | None = None) -> list[str]:
        """Users created at noon of the cohort's day; their ids."""
        created_at = datetime.combine(day or cohort_date(), datetime.min.time(), UTC) + timedelta(hours=12)
        self.ledger.execute(
            "INSERT INTO users (user_id, email, full_name, created_at)"
            " SELECT n, 'user' || n || '@example.com', 'Ada Example', %s"
            " FROM generate_series(%s::bigint, %s) AS n",
            (created_at, first, first + count - 1),
        )
        return [str(number) for number in range(first, first + count)]

    def open_sink(self, plan: SinkPlan | None = None) -> int:
        """Begin to accept mail, by plan; the port. The record goes on where one was closed."""
        plan_fields = asdict(plan or SinkPlan.usual())
        self._sink = int(
            self.network.do(
                "open sink",
                plan=plan_fields,
                record=str(self._files / "accepted"),
                log=str(self._files / "dots"),
            )
        )
        return self._sink

    def close_sink(self) -> None:
        """End every connection; nobody listens any more."""
        if self._sink is not None:
            self.network.do("close sink", port=self._sink)
            self._sink = None

    def sink(self, name: str, **arguments: Any) -> Any:
        """A command to the open sink."""
        return self.network.do(name, port=self._sink, **arguments)

    def let_time_pass(self, time: timedelta = LATER) -> None:
        """Make everything in the ledger so much older: time is the database's, this is how it passes.

        But not what a throttle granted last: its moments are held against the sink's own clock.
        """
        columns = self.ledger.execute(
            "SELECT table_name, string_agg(format('%%I = %%I - $1', column_name, column_name), ', ')"
            " FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'lifecycle' AND table_type = 'BASE TABLE'"
            " AND data_type = 'timestamp with time zone' AND table_name <> ALL (%s) GROUP BY 1",
            (["migrations", "throttles"],),
        ).fetchall()
        shift = f"interval '{time.total_seconds()} seconds'"
        updates = "; ".join(
            f"UPDATE lifecycle.{table} SET {changes.replace('$1', shift)}"  # noqa: S608  (names of our own tables)
            for table, changes in columns
        )
        self.ledger.execute(
            f"SET session_replication_role = replica; {updates};"
            " SET session_replication_role = origin".encode()
        )

    # --- processes ----------------------------------------------------------------------------------------

    def start(self, *steps: str, campaign: str = CAMPAIGN, **options: Any) -> Process:
        """Begin steps of a run in a process of its own. ``kill`` and ``stop``: (point, passage)."""
        self.runs += 1
        number = f"{self.runs}"
        url = self.postgres.url(self.database)
        job = {
            "steps": steps or DAILY,
            "campaign": campaign,
            "include": str(self.include),
            "ledger": url if self.port is None else url.replace(f":{self.postgres.port}/", f":{self.port}/"),
            "source": url,
            "dates": [cohort_date().isoformat()],
            "smtp": {
                "host": "127.0.0.1", "port": self._sink or 1, "security": "none", "dot_timeout": 30,
                **self.smtp,
            },
            "result": str(self._files / f"{number}.result"),
            "journal": str(self._files / f"{number}.journal"),
            **options,
        }  # fmt: skip
        return self.server.start(job)

    def run(self, *steps: str, **options: Any) -> Process:
        """Do steps of a run in a process of its own and wait for its end."""
        return self.finish(self.start(*steps, **options))

    def finish_slowly(self, process: Process) -> Process:
        """Wait for a process that has much to do."""
        process.wait(3600)
        return self.finish(process)

    def finish(self, process: Process) -> Process:
        """Wait for a process, count its kill, note what it left open."""
        process.wait()
        asked = process.job.get("kill")
        journal = read_journal(Path(process.job["journal"]))
        self.unanswered |= unanswered_dots(journal)
        if process.was_killed:
            self.left_open |= left_open(journal)
            point = next(
                (entry["killed"] for entry in reversed(journal) if "killed" in entry), "from outside"
            )
            self.kills[point] += 1
        elif process.status != 0:
            raise BenchError(
                f"a process ended with status {process.status}; see the log beside {self.folder}"
            )
        elif asked:
            self.not_reached[asked[0]] += 1
        return process

    def run_all(self, number: int, *steps: str, **options: Any) -> list[Process]:
        """Do the same steps in several processes that begin at the same moment."""
        start_at = time.monotonic() + 0.3
        processes = [self.start(*steps, start_at=start_at, **options) for _ in range(number)]
        return [self.finish(process) for process in processes]

    def run_until_done(self, *, most: int = 8, **options: Any) -> None:
        """Daily runs, with time passing between them, until nobody is planned or ready; then the sweep."""
        for _ in range(most):
            self.let_time_pass()
            self.run(*DAILY, **options)
            if not self.count("planned", "ready"):
                break
        self.let_time_pass()
        self.run("sweep")

    # --- what was seen ------------------------------------------------------------------------------------

    def count(self, *states: str) -> int:
        """Rows of the ledger in these states."""
        row = self.ledger.execute(
            "SELECT count(*) FROM lifecycle.sends WHERE state = ANY (%s::lifecycle.send_state[])",
            (list(states),),
        ).fetchone()
        return int(row[0]) if row else 0

    def details(self, users: Iterable[str]) -> dict[str, str | None]:
        """What the ledger says of users, for whoever looks into a finding."""
        rows = self.ledger.execute(
            "SELECT user_id, detail FROM lifecycle.sends WHERE user_id = ANY (%s)", (list(users),)
        )
        return dict(rows.fetchall())

    def mails(self) -> Mails:
        """Read the sink's files and the ledger, once every connection has ended."""
        if self._sink is not None and not self.sink("settle", seconds=60):
            raise BenchError("a connection to the sink did not end")
        accepted = _lines(self._files / "accepted")
        dots = _lines(self._files / "dots")
        rows = self.ledger.execute(
            "SELECT campaign, user_id, concat_ws('/', state::text, held_reason::text) FROM lifecycle.sends"
        )
        return Mails(
            copies=Counter((line["campaign"], line["user_id"]) for line in accepted),
            doubtful_dots={line["user_id"] for line in dots if line["answer"] == DOUBTFUL},
            broken_bodies={line["user_id"] for line in dots if line["phase"] == "body"},
            rejections={line["user_id"] for line in dots if line["mode"] in REJECTING_MODES},
            states={(campaign, user): state for campaign, user, state in rows.fetchall()},
        )

    def arrivals(self) -> list[float]:
        """When the dot of each accepted mail reached the sink, in seconds of its clock."""
        return [line["at"] for line in _lines(self._files / "accepted")]

    def close(self) -> None:
        """End what this stage started, but for the processes that it shares."""
        self.close_sink()
        self.ledger.close()


def prepare_template(postgres: PostgresServer, server: ProcessServer, name: str, folder: Path) -> None:
    """A database with the ledger of the server's tree and an empty source, to copy."""
    postgres.create_database(name)
    job = {
        "steps": ["migrate"], "ledger": postgres.url(name), "source": postgres.url(name),
        "result": str(folder / f"{name}.result"), "journal": str(folder / f"{name}.journal"),
    }  # fmt: skip
    process = server.start(job).wait()
    if process.status or process.outcome["error"]:
        raise BenchError(f"the ledger could not be made: {process.outcome['error']} {server.last_words()}")
    with postgres.connect(name) as connection:
        example_app.create_table(connection)


def _lines(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else ()
