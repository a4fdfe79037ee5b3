"""Where a benchmarked sender lives: its databases, its include folder, its package, its processes.

Each sender has a ledger and a source of its own, planned by the package itself, a cohort for each round.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import yaml

from bench.contest import Run
from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.batches import Group
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.planning import extract_cohort
from local_stack import example_app
from local_stack.postgres import PostgresServer

ROOT = Path(__file__).parents[1]
CAMPAIGN = "bench"
NO_CAP = (CapRule("no_cap", 1000, timedelta(days=1)),)
LEDGER_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
MOST_PER_BATCH = 10_000
MOST_USERS = 10_000_000
"""The most users of a day: those of the next day are numbered from there on."""
_ADD_USERS = """
INSERT INTO users (user_id, email, full_name, created_at)
SELECT
    %(day)s::bigint * %(most)s + n,
    'user' || n || '@example.com',
    CASE n %% 10 WHEN 0 THEN 'Zoë ' ELSE 'Ada ' END || md5(n::text),
    date_trunc('day', now()) - make_interval(days => 4 + %(day)s) + interval '1 hour'
FROM generate_series(1, %(size)s) AS n
"""


@dataclass(frozen=True)
class Load:
    """How much is sent a round, for how many rounds, by how many processes and connections of each."""

    size: int
    rounds: int
    processes: int = 2
    connections: int = 32


@dataclass(frozen=True)
class Place:
    """Where the senders of one ledger live: its databases, its include folder, its copy of the package."""

    include: Path
    package: Path
    ledger_url: str
    source_url: str

    def campaign(self) -> Campaign:
        """The campaign, as its file says."""
        return load_campaign(self.include, CAMPAIGN)


def make_include(folder: Path, load: Load, batches: int = 4) -> Path:
    """The repository's example campaign as `CAMPAIGN`, with more connections and no limit on old cohorts.

    ``batches``: how many each process gets, as long as they are not too large.
    """
    include = folder / "include"
    shutil.copytree(ROOT / "include", include)
    fields = yaml.safe_load((include / "campaigns" / "day4_follow_up.yaml").read_text())
    fields |= {
        "id": CAMPAIGN,
        "schedule": f"0 {(datetime.now(UTC).hour + 12) % 24} * * *",  # not while the bench is running
        "max_lateness_days": 3650,
        "batch_size": max(1, min(MOST_PER_BATCH, load.size // load.processes // batches)),
        "connections": load.connections,
        "volume": "off",
    }
    (include / "campaigns" / f"{CAMPAIGN}.yaml").write_text(yaml.safe_dump(fields))
    return include


def add_users(source: psycopg.Connection[Any], sizes: Sequence[int]) -> None:
    """Give the source so many users on each day, from four days ago backwards; see `cohort_day`."""
    example_app.create_table(source)
    for day, size in enumerate(sizes):
        source.execute(_ADD_USERS, {"day": day, "size": size, "most": MOST_USERS})
    source.execute("ANALYZE users")


def cohort_day(number: int) -> date:
    """The day of the users that `add_users` gave the source as the ``number``th, counted from 0."""
    return (datetime.now(UTC) - timedelta(days=4 + number)).date()


def make_place(
    server: PostgresServer, name: str, include: Path, package: Path, load: Load, *, unguarded: bool = False
) -> Place:
    """Databases of a sender's own: a ledger, and users enough for one cohort a round.

    ``unguarded``: a sender that goes past the ledger's rules, whose triggers are then off.
    """
    ledger_name, source_name = f"{name}_ledger", f"{name}_source"
    for database in (ledger_name, source_name):
        server.create_database(database)
    with server.connect(source_name) as source:
        add_users(source, [load.size] * load.rounds)
    with server.connect(ledger_name) as ledger:
        migrate(ledger)
        if unguarded:
            ledger.execute("ALTER TABLE lifecycle.sends DISABLE TRIGGER USER")
    return Place(include, package, server.url(ledger_name), server.url(source_name))


@contextmanager
def senders(
    place: Place, port: int, load: Load, certificate: Path | None = None
) -> Iterator[Callable[[], Run]]:
    """Senders that wait for work, each a process of its own, as mapped tasks would be; a call is a round."""
    command = [
        sys.executable, "-m", "bench.sender_process", str(place.include), place.ledger_url, place.source_url,
        str(port), *([str(certificate)] if certificate else []),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{place.package}{os.pathsep}{ROOT}"}
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(load.processes)
    ]
    days = iter(range(load.rounds))

    def send() -> Run:
        day = cohort_day(next(days))
        for process, group in zip(processes, _planned(place, day, load), strict=True):
            _tell(process, group)
        answers = [json.loads(_line(process)) for process in processes]
        sent = sum(answer["sent"] for answer in answers)
        return Run(
            mails=sent,
            seconds=max(a["ended"] for a in answers) - min(a["began"] for a in answers),
            cpu=sum(answer["cpu"] for answer in answers) / sent * 1e6,
            memory=max(answer["memory"] - answer["memory_before"] for answer in answers) / 1024,
            recorded=recorded_as_sent(place.ledger_url, day),
        )

    try:
        for process in processes:
            _line(process)
        yield send
    finally:
        for process in processes:
            with process:  # closes its pipes, and waits
                process.kill()


def recorded_as_sent(ledger_url: str, day: date) -> int:
    """How many of a day's users the ledger calls sent."""
    with psycopg.connect(ledger_url) as ledger:
        counted = ledger.execute(
            "SELECT count(*) FROM lifecycle.sends"
            " WHERE campaign = %s AND cohort_date = %s AND state = 'sent'",
            [CAMPAIGN, day],
        ).fetchone()
    return int(counted[0]) if counted else 0


def _planned(place: Place, day: date, load: Load) -> list[Group]:
    """Plan the cohort of a day; one group for each sender."""
    campaign = place.campaign()
    audience = Audience.load(place.include, campaign)
    with (
        psycopg.connect(place.ledger_url, autocommit=True) as ledger,
        psycopg.connect(place.source_url, autocommit=True) as source,
    ):
        dates = extract_cohort(ledger, source, campaign, audience, day, with_earlier=False).cohort_dates
        filter_ledger(ledger, campaign, dates)
        limited = limit_rate(
            ledger, campaign, NO_CAP, dates, callbacks=(), run="bench", max_groups=load.processes
        )
        ledger.execute("VACUUM ANALYZE lifecycle.sends")
        ledger.execute("CHECKPOINT")
    batches = [batch for group in limited.groups for batch in group.batches]
    return [Group(part, load.size // load.processes) for part in dealt_out(batches, load.processes)]


def dealt_out(batches: Sequence[int], processes: int) -> list[tuple[int, ...]]:
    """The batches in as many parts as there are processes, none empty where there are batches enough."""
    ends = [len(batches) * number // processes for number in range(processes + 1)]
    return [tuple(batches[start:end]) for start, end in pairwise(ends)]


def _tell(process: subprocess.Popen[str], group: Group) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(group.as_dict()) + "\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError("a sender ended without an answer")
    return line
