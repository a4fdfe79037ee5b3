"""Measure planning: from the users of a source to batches that are ready to send, and how its cost grows.

`python -m bench.planning --size 1000000`. One embedded PostgreSQL holds source and ledger, fsync and
synchronous_commit on. Each planning runs in a process of its own. Beside the clock stand seconds of CPU, of
that process and of the server, and a reference: a plain COPY of as many ids from the source into an empty
table, so that runs on a busy machine can be compared. Prints tables; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import yaml

from bench.arguments import whole_number
from bench.planning_history import CAMPAIGNS, DAYS, load_history
from bench.planning_process import Meter
from bench.storage_layouts import Layout
from lifecycle_emails.ledger.migration import migrate
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer

_SQL = files("bench") / "planning_sql"
_ROOT = Path(__file__).parents[1]
SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}
_FIRST_USER = 100_000_000
# ids as the source has them, for user number n: ids in order of signing up, or random ones
IDS = {
    "bigint": ("bigint", "n"),
    "uuid": ("uuid", "md5('user ' || n)::uuid"),
}
STEPS = ("extract", "filter", "limit")
KNOWN_USERS, NEWCOMERS = "known users", "newcomers"
"""Whom a plan is about: users with four sends in the history, or whom the ledger has never seen."""


@dataclass(frozen=True)
class Planned:
    """What one planning took: seconds of the clock, of its process and of the server, by step or query."""

    size: int
    ready: int
    spent: dict[str, tuple[float, ...]]
    memory_mib: float
    hot_percent: float
    reference: tuple[float, ...]

    @property
    def total(self) -> tuple[float, ...]:
        """All steps together."""
        return tuple(sum(part) for part in zip(*(self.spent[step] for step in STEPS), strict=True))

    @property
    def cpu(self) -> float:
        """Seconds of CPU of all steps, on both sides."""
        return sum(self.total[1:])

    def figures(self) -> dict[str, Any]:
        """For the JSON line."""
        return {
            "size": self.size,
            "seconds": self.total[0],
            "seconds_per_million": self.total[0] / self.size * 1e6,
            "cpu_seconds_per_million": self.cpu / self.size * 1e6,
            "of_reference_clock": self.total[0] / self.reference[0],
            "of_reference_cpu": self.cpu / sum(self.reference[1:]),
            "memory_mib": self.memory_mib,
            "hot_percent": self.hot_percent,
            "steps": {step: self.spent[step] for step in STEPS},
        }


class Place:
    """A server with one source and one ledger, with or without history."""

    def __init__(self, server: PostgresServer, name: str, ids: str, include: Path) -> None:
        self._server = server
        self._include = include
        self._user = self._newcomer = 0
        self._day = datetime.now(UTC).date() - timedelta(days=4)
        self._urls = [self._database(f"{name}_{role}") for role in ("ledger", "source")]
        self.ledger, self._source = (psycopg.connect(url, autocommit=True) for url in self._urls)
        self._layout = Layout("unpartitioned", self.ledger)
        id_type, self._user_id = IDS[ids]
        self._source.execute(text("create_users").replace("{id_type}", id_type).encode())
        self._postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
        migrate(self.ledger)

    def _database(self, name: str) -> str:
        self._server.create_database(name)
        return self._server.url(name)

    def close(self) -> None:
        """Close the connections and drop the databases."""
        for connection in (self.ledger, self._source):
            name = connection.info.dbname
            connection.close()
            self._server.drop_database(name)

    def load_history(self, sends: int, planned: int) -> None:
        """Fill the ledger with about ``sends`` of the past year; the next ``planned`` users are among theirs.

        These come from the middle, so that the cap must look at four old sends of each and refuses none. Call
        `go_on_with_newcomers` for users whom the ledger has never seen.
        """
        started = time.perf_counter()
        last = self._day - timedelta(days=1)
        users = load_history(self.ledger, self._user_id, sends, last=last, first_user=_FIRST_USER)
        self._user, self._newcomer = (users - planned) // 2, users
        show(f"a history of {users * len(CAMPAIGNS):,} sends took {time.perf_counter() - started:.0f} s")

    def go_on_with_newcomers(self) -> None:
        """Let the next users be nobody of the history."""
        self._user = max(self._user, self._newcomer)

    def add_users(self, size: int) -> date:
        """Add the users of the next day to the source, some of them suppressed; returns the day."""
        day = self._day
        self._day += timedelta(days=1)
        arguments = {"day": day, "first": _FIRST_USER + self._user, "size": size}
        self._user += size
        self._source.execute(text("add_users").replace("{user_id}", self._user_id).encode(), arguments)
        self._source.execute("VACUUM ANALYZE users")
        ids = self._source.execute(text("some_users").encode(), {**arguments, "most": size // 100})
        user_ids = [user_id for (user_id,) in ids]
        self.ledger.execute(text("suppress").encode(), {"user_ids": user_ids})
        self.ledger.execute("CHECKPOINT")
        return day

    def plan(self, size: int, campaigns: Sequence[str] = ("bench0",)) -> list[Planned]:
        """Plan one new cohort in each of the campaigns, one after the other, in one new process."""
        day = self.add_users(size)
        with self._process() as process:
            return [self._planned(process, size, campaign, day) for campaign in campaigns]

    @contextmanager
    def _process(self) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-m", "bench.planning_process",
             str(self._include), *self._urls, str(self._postmaster)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def _planned(self, process: subprocess.Popen[str], size: int, campaign: str, day: date) -> Planned:
        meter = Meter(self._postmaster)
        with meter.measured("reference"):
            self._copy_ids(day)
        before = self._layout.updates()
        answer = _ask(process, {"campaign": campaign, "day": day.isoformat()})
        if answer["new"] != size:
            raise RuntimeError(f"{answer['new']} of {size} users were planned")
        spent = {name: tuple(values) for name, values in answer["spent"].items()}
        reference = tuple(meter.take()["reference"])
        hot = self._layout.hot_percent_since(before)
        return Planned(size, answer["ready"], spent, answer["memory_mib"], hot, reference)

    def _copy_ids(self, day: date) -> None:
        """The reference: the day's ids by COPY from the source into an empty table of the ledger's."""
        self.ledger.execute("CREATE TABLE reference (user_id text)")
        window = {"day": day}
        with (
            self._source.cursor() as source, self.ledger.cursor() as ledger,
            source.copy(text("copy_ids").encode(), window) as out,
            ledger.copy("COPY reference FROM STDIN") as into,
        ):  # fmt: skip
            for block in out:
                into.write(block)
        self.ledger.execute("DROP TABLE reference")


def _ask(process: subprocess.Popen[str], question: dict[str, str]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the planning process has no pipes")
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the planning process ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = _options(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        folder.chmod(0o711)
        include = _include(folder, options.campaigns)
        server = PostgresServer(folder / "postgres", options.port or free_port(), SERVER)
        stack.callback(server.remove)
        server.start()
        growth: list[tuple[int, Planned]] = []
        figures: dict[str, Any] = {}
        places = {h: Place(server, f"history{h}", options.ids, include) for h in [0, *options.history]}
        for history in options.history:
            places[history].load_history(history, options.size * options.rounds)
        for users in (KNOWN_USERS, NEWCOMERS) if options.history else (NEWCOMERS,):
            turns = list(_in_turns(places, users, options))
            for history in options.history:
                key = f"history_{history}_{users.replace(' ', '_')}"
                figures[key] = history_figures(turns, history, users)
            growth += turns
        if options.campaigns > 1:
            size = min(options.size, max(1000, options.size // 50))
            each = places[0].plan(size, [f"bench{number}" for number in range(1, options.campaigns + 1)])
            figures["campaigns"] = campaigns_figures(each)
        for place in places.values():
            place.close()
        figures = {"planned": [{"history": h, **p.figures()} for h, p in growth], **figures}
        figures["parsing"] = measure_parsing(folder, options.campaigns)
    print(json.dumps({"ids": options.ids, "load_average": os.getloadavg()[0], **SERVER, **rounded(figures)}))


def _in_turns(
    places: dict[int, Place], users: str, options: argparse.Namespace
) -> Iterator[tuple[int, Planned]]:
    """Plan in each of the places, round by round; give the history of each and what was measured."""
    for place in places.values() if users == NEWCOMERS else ():
        place.go_on_with_newcomers()
    for _ in range(options.rounds):
        for history, place in places.items():
            for size in (options.size,) if len(places) > 1 else _sizes(options.size):
                (planned,) = place.plan(size)
                show_planned(planned, f"{users}; {history:,} sends before", options.queries)
                yield history, planned


def _sizes(size: int) -> list[int]:
    return [part for part in (size // 100, size // 10) if part >= 1000] + [size]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.planning", description=__doc__)
    parser.add_argument(
        "--size",
        type=whole_number(1),
        default=1_000_000,
        help="users of the largest cohort; also a 10th, a 100th",
    )
    parser.add_argument("--rounds", type=whole_number(1), default=1)
    parser.add_argument(
        "--history",
        type=whole_number(least_history(1)),
        nargs="*",
        default=[],
        help="sends in the ledger before; planned in turns with a ledger that has none",
    )
    parser.add_argument("--campaigns", type=whole_number(1), default=50)
    parser.add_argument(
        "--ids", choices=IDS, default="bigint", help="user ids: in order of sign-up, or random"
    )
    parser.add_argument("--queries", action="store_true", help="show every query of the plan")
    parser.add_argument("--folder", help="where the databases lie")
    parser.add_argument("--port", type=whole_number(1, 65535), help="port of the server")
    options = parser.parse_args(arguments)
    least = least_history(options.size * options.rounds)
    if min(options.history, default=least) < least:
        parser.error(f"argument --history: it is at least {least:,} with this size and so many rounds")
    return options


def least_history(planned: int) -> int:
    """The fewest sends whose users are twice as many as are ``planned``, and more by one for each day."""
    return len(CAMPAIGNS) * (2 * planned + DAYS)


def _include(folder: Path, campaigns: int) -> Path:
    """The repository's example with as many campaigns as asked for, of one audience, which do not cap."""
    include = folder / "include"
    shutil.copytree(_ROOT / "include", include)
    fields = yaml.safe_load((include / "campaigns" / "day4_follow_up.yaml").read_text())
    (include / "audiences" / "bench.sql").write_text(text("audience"))
    for number in range(campaigns + 1):
        campaign = {**fields, "id": f"bench{number}", "audience": "bench.sql"}
        campaign["frequency_cap"] = "default" if number == 0 else "many"
        (include / "campaigns" / f"bench{number}.yaml").write_text(yaml.safe_dump(campaign))
    caps = yaml.safe_load((include / "frequency_caps.yaml").read_text())
    caps["many"] = {"many": {"max_sends": 1000, "window": "7 days"}}
    (include / "frequency_caps.yaml").write_text(yaml.safe_dump(caps))
    return include


def measure_parsing(folder: Path, campaigns: int) -> dict[str, Any]:
    """Parse a DAG file for each campaign in a new process, beyond importing Airflow."""
    dags = folder / "dags"
    dags.mkdir()
    for number in range(1, campaigns + 1):
        name = f"bench{number}"
        (dags / f"{name}.py").write_text(
            "from lifecycle_emails.dag_factory import lifecycle_dag\n\n"
            f"dag = lifecycle_dag({name!r})  # airflow\n"
        )
    done = subprocess.run(
        [sys.executable, "-m", "bench.dag_parsing", str(dags)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "AIRFLOW_HOME": str(folder / "airflow")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show_planned(planned: Planned, of_whom: str, with_queries: bool) -> None:
    """Print a planning as a table."""
    print(f"\n{planned.size:,} users, {planned.ready:,} ready; {of_whom}; "
          f"memory {planned.memory_mib:.1f} MiB; "
          f"HOT {planned.hot_percent:.1f} %; load {os.getloadavg()[0]:.0f}")  # fmt: skip
    print(f"{'':32}{'clock s':>9}{'client s':>9}{'server s':>9}{'CPU s per million':>19}")
    rows = {"reference COPY of ids": planned.reference, "planning": planned.total}
    rows |= {name: values for name, values in planned.spent.items() if with_queries or name in STEPS}
    for name, (clock, client, server) in rows.items():
        million = (client + server) / planned.size * 1e6
        print(f"{name:32}{clock:9.2f}{client:9.2f}{server:9.2f}{million:19.2f}", flush=True)


def history_figures(growth: Sequence[tuple[int, Planned]], history: int, users: str) -> dict[str, float]:
    """Planning with a history against without, each round with its own: medians of the ratios."""
    without, with_it = ([planned for h, planned in growth if h == which] for which in (0, history))
    pairs = list(zip(with_it, without, strict=True))
    clock = statistics.median(one.total[0] / other.total[0] for one, other in pairs)
    cpu = statistics.median(one.cpu / other.cpu for one, other in pairs)
    print(f"\n{history:,} sends of history, {users}: {clock:.2f} times the clock, {cpu:.2f} times the CPU")
    return {"clock": clock, "cpu": cpu}


def campaigns_figures(each: Sequence[Planned]) -> dict[str, Any]:
    """The same users in one campaign after another: what each took, and the line through that."""
    fifth = max(1, len(each) // 5)
    first, last = (statistics.median(one.cpu for one in part) for part in (each[:fifth], each[-fifth:]))
    seconds = sum(one.total[0] for one in each)
    print(f"\n{len(each)} campaigns of {each[0].size:,} users each: {seconds:.1f} s; CPU of the last "
          f"fifth is {last / first:.2f} times that of the first")  # fmt: skip
    line = statistics.linear_regression(range(len(each)), [one.cpu for one in each])
    print(f"CPU of a campaign: {line.intercept:.3f} s, and {line.slope:.4f} s more for each one before it")
    return {
        "campaigns": len(each), "size": each[0].size, "seconds": seconds,
        "cpu_seconds": sum(one.cpu for one in each), "last_to_first_cpu": last / first,
        "cpu_seconds_of_each": [one.cpu for one in each],
        "fit": {"cpu_seconds": line.intercept, "cpu_seconds_for_each_before": line.slope},
    }  # fmt: skip


def rounded(value: Any) -> Any:
    """Four digits are enough."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def show(line: str) -> None:
    """Print a line of progress at once, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {line}", flush=True)


def text(name: str) -> str:
    """The text of planning_sql/``name``.sql."""
    return (_SQL / f"{name}.sql").read_text()


if __name__ == "__main__":
    with sigterm_interrupts():
        main()
