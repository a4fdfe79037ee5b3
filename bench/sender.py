"""Measure the sender alone against the limit of the wire, on this machine, in one run.

`python -m bench.sender --size 20000 --rounds 3`. Everybody sends the same amount to the same null sink, in
turns, so that whatever else the machine does hits all of them: Postfix's `smtp-source`, a bare `smtplib` loop
with one prebuilt message, the sender in two processes (as two mapped tasks would run), and patched copies of
the sender. Rates are mails per second; what counts are the ratios. Prints a table; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import smtplib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml

import lifecycle_emails
from bench.sinks import Sink, postfix_program, running_sink
from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.delivery.wire import dot_stuffed
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.batches import Group
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.planning import extract_cohort
from lifecycle_emails.message import MessageTemplates
from local_stack import example_app
from local_stack.ports import LOOPBACK, free_port
from local_stack.postgres import PostgresServer

ROOT = Path(__file__).parents[1]
NO_CAP = (CapRule("no_cap", 1000, timedelta(days=1)),)
SOURCE_CONNECTIONS = 32
SOURCE_LENGTH = 7000
_LEDGER = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}

_NO_GATE_UPDATE = "SELECT a.user_id, 'passed' FROM unnest(%(user_ids)s::text[]) AS a (user_id)\n"
_UNGUARDED_OUTCOMES = """\
WITH outcomes AS MATERIALIZED (
    SELECT o.*, mine.row_at
    FROM unnest(%(user_ids)s::text[], %(attempts)s::uuid[], %(verdicts)s::text[], %(queue_ids)s::text[])
        AS o (user_id, attempt, verdict, queue_id)
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at FROM lifecycle.sends AS s
        WHERE s.user_id = o.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1
    ) AS mine
)
UPDATE lifecycle.sends AS s
SET state = o.verdict::lifecycle.send_state, sent_at = now(), queue_id = o.queue_id, attempt = o.attempt
FROM outcomes AS o
WHERE s.ctid = o.row_at AND s.state = 'ready'
"""


@dataclass
class Run:
    """What one contestant did in one round."""

    rate: float
    cpu: float = 0.0
    memory: float = 0.0


@dataclass
class Contestant:
    """Somebody who sends `size` mails to the sink, and what became of it."""

    name: str
    send: Callable[[], Run]
    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the mails per second."""
        return statistics.median(run.rate for run in self.runs)


@dataclass(frozen=True)
class Place:
    """Where the senders of one ledger live: its databases, its include folder, its copy of the package."""

    include: Path
    package: Path
    ledger_url: str
    source_url: str

    def campaign(self) -> Campaign:
        """The campaign, as its file says."""
        return load_campaign(self.include, "bench")


def main() -> None:
    """Run the rounds that the command line asks for."""
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        folder.chmod(0o711)
        server = PostgresServer(folder / "postgres", options.port or free_port(), _LEDGER)
        stack.callback(server.remove)
        server.start()
        sink = stack.enter_context(running_sink())
        contestants = _contestants(options, folder, server, sink, stack)
        for _ in range(options.rounds):
            for contestant in contestants:
                run = _counted(contestant, sink, options.size)
                contestant.runs.append(run)
                print(f"{contestant.name}: {run.rate:.0f} mails/s, {run.cpu:.0f} us", file=sys.stderr)
        _report(contestants, sink, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="mails of each contestant and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="senders at once")
    parser.add_argument("--connections", type=int, default=32, help="SMTP connections of each sender")
    parser.add_argument("--only", nargs="*", help="names of contestants; all of them when left out")
    parser.add_argument("--other", type=Path, help="folder with another lifecycle_emails to compare with")
    parser.add_argument("--folder", help="where the ledger's database lies; fsync is on")
    parser.add_argument("--port", type=int, help="port of the ledger's database")
    return parser.parse_args()


def _contestants(
    options: argparse.Namespace, folder: Path, server: PostgresServer, sink: Sink, stack: ExitStack
) -> list[Contestant]:
    packages = Path(lifecycle_emails.__file__).parents[1]
    include = _include(folder, options)
    found = []

    def wanted(name: str) -> bool:
        return not options.only or name in options.only

    if wanted("smtp-source") and postfix_program("smtp-source"):
        found.append(Contestant("smtp-source", lambda: _smtp_source(sink, options.size)))
    senders: dict[str, Callable[[Path], None] | None] = {
        "sender": None,
        "sender without the gate's UPDATE": _without_gate_update,
        "sender that never waits at the gate": _without_gate_wait,
    }
    if options.other:
        senders["other sender"] = None
    for number, (name, patch) in enumerate(senders.items()):
        if not wanted(name):
            continue
        package = options.other if name == "other sender" else packages
        if patch is not None:
            package = folder / f"copy{number}"
            shutil.copytree(packages / "lifecycle_emails", package / "lifecycle_emails")
            patch(package / "lifecycle_emails")
        place = _place(server, number, include, package, options, unguarded=patch is not None)
        found.append(Contestant(name, stack.enter_context(_senders(place, sink, options))))
    if wanted("smtplib"):
        found.append(Contestant("smtplib", lambda: _bare_smtplib(include, sink, options.size)))
    return found


def _include(folder: Path, options: argparse.Namespace) -> Path:
    """The repository's example campaign, with more connections and a patience for many cohorts."""
    include = folder / "include"
    shutil.copytree(ROOT / "include", include)
    file = include / "campaigns" / "day4_follow_up.yaml"
    fields = yaml.safe_load(file.read_text())
    fields |= {
        "id": "bench",
        "max_lateness_days": 3650,
        "batch_size": min(10_000, -(-options.size // options.processes)),
        "connections": options.connections,
    }
    (include / "campaigns" / "bench.yaml").write_text(yaml.safe_dump(fields))
    return include


def _place(
    server: PostgresServer,
    number: int,
    include: Path,
    package: Path,
    options: argparse.Namespace,
    *,
    unguarded: bool,
) -> Place:
    """Databases of a sender's own: a ledger, and users enough for one cohort a round."""
    for name in ("ledger", "source"):
        server.create_database(f"{name}{number}")
    with server.connect(f"source{number}") as source:
        example_app.create_table(source)
        source.execute(
            "INSERT INTO users (user_id, email, full_name, created_at)"
            " SELECT d * 10000000 + n, 'user' || n || '@example.com',"
            " CASE n %% 10 WHEN 0 THEN 'Zoë ' ELSE 'Ada ' END || md5(n::text),"
            " date_trunc('day', now()) - make_interval(days => 4 + d) + interval '1 hour'"
            " FROM generate_series(0, %s) AS d, generate_series(1, %s) AS n",
            [options.rounds - 1, options.size],
        )
        source.execute("ANALYZE users")
    with server.connect(f"ledger{number}") as ledger:
        migrate(ledger)
        if unguarded:
            ledger.execute("ALTER TABLE lifecycle.sends DISABLE TRIGGER USER")
    return Place(include, package, server.url(f"ledger{number}"), server.url(f"source{number}"))


def _without_gate_update(package: Path) -> None:
    queries = package / "sql" / "queries"
    (queries / "pass_gate.sql").write_text(_NO_GATE_UPDATE)
    (queries / "record_outcomes.sql").write_text(_UNGUARDED_OUTCOMES)


def _without_gate_wait(package: Path) -> None:
    _without_gate_update(package)
    file = package / "ledger" / "gate.py"
    text = file.read_text()
    head = "        question = _Question("
    if text.count(head) != 1:
        raise RuntimeError("the gate has changed; mend the bench's copy of it")
    file.write_text(text.replace(head, f"        return Passage.PASSED\n{head}"))


@contextmanager
def _senders(place: Place, sink: Sink, options: argparse.Namespace) -> Iterator[Callable[[], Run]]:
    """Senders that wait for work, as processes of their own."""
    command = [sys.executable, "-m", "bench.sender_process"]
    arguments = [str(place.include), place.ledger_url, place.source_url, str(sink.port)]
    environment = {**os.environ, "PYTHONPATH": f"{place.package}{os.pathsep}{ROOT}"}
    processes = [
        subprocess.Popen(
            [*command, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(options.processes)
    ]
    days = iter(range(options.rounds))

    def send() -> Run:
        day = (datetime.now(UTC) - timedelta(days=4 + next(days))).date()
        groups = _planned(place, day, options)
        for process, group in zip(processes, groups, strict=True):
            _tell(process, group)
        answers = [_answer(process) for process in processes]
        seconds = max(a["ended"] for a in answers) - min(a["began"] for a in answers)
        sent = sum(a["sent"] for a in answers)
        memory = max(a["memory"] - a["memory_before"] for a in answers) / 1024
        return Run(sent / seconds, sum(a["cpu"] for a in answers) / sent * 1e6, memory)

    try:
        for process in processes:
            _line(process)
        yield send
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(_line(process))
    return answer


def _tell(process: subprocess.Popen[str], group: Group) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(group.as_dict()) + "\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError("a sender ended without an answer")
    return line


def _planned(place: Place, day: date, options: argparse.Namespace) -> list[Group]:
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
            ledger, campaign, NO_CAP, dates, callbacks=(), run="bench", max_groups=options.processes
        )
        ledger.execute("VACUUM ANALYZE lifecycle.sends")
        ledger.execute("CHECKPOINT")
    batches = [batch for group in limited.groups for batch in group.batches]
    share = -(-len(batches) // options.processes)
    parts = [tuple(batches[start : start + share]) for start in range(0, len(batches), share)]
    return [Group(part, options.size // options.processes) for part in parts]


def _smtp_source(sink: Sink, size: int) -> Run:
    program = postfix_program("smtp-source") or ""
    began = time.monotonic()
    subprocess.run(
        [program, "-d", "-s", str(SOURCE_CONNECTIONS), "-l", str(SOURCE_LENGTH), "-m", str(size),
         f"{LOOPBACK}:{sink.port}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return Run(size / (time.monotonic() - began))


def _bare_smtplib(include: Path, sink: Sink, size: int) -> Run:
    """One connection, one message made before: what a hand-written loop would reach at best."""
    templates = MessageTemplates.load(include, load_campaign(include, "bench"))
    now = datetime.now(UTC)
    profile = {"user_id": 1, "email": "user1@example.com", "full_name": "Ada Example", "created_at": now}
    message = templates.render(profile, "user1@example.com", "<bench@example.com>", now)
    content = dot_stuffed(message.content)
    with smtplib.SMTP(LOOPBACK, sink.port) as client:
        client.ehlo()
        began = time.monotonic()
        for _ in range(size):
            client.sendmail(message.sender, [message.recipient], content)
        return Run(size / (time.monotonic() - began))


def _counted(contestant: Contestant, sink: Sink, size: int) -> Run:
    """Let the contestant send, and hold the sink's count against what it should be."""
    before = sink.mails()
    run = contestant.send()
    deadline = time.monotonic() + 5
    while sink.mails() - before < size and time.monotonic() < deadline:
        time.sleep(0.05)
    if sink.mails() - before != size:
        raise RuntimeError(f"{contestant.name}: {size} mails sent, {sink.mails() - before} at the sink")
    return run


def _report(contestants: list[Contestant], sink: Sink, options: argparse.Namespace) -> None:
    by_name = {contestant.name: contestant for contestant in contestants}
    source = by_name.get("smtp-source")
    print(f"\n{options.size} mails, {options.rounds} rounds, {options.processes} processes with "
          f"{options.connections} connections each, to {sink.name}\n")  # fmt: skip
    print(f"{'':38}{'mails/s':>9}{'spread':>16}{'of smtp-source':>16}{'us CPU':>8}{'MiB':>6}")
    for contestant in contestants:
        rates = [run.rate for run in contestant.runs]
        share = f"{_ratio(contestant, source):.3f}" if source else "-"
        cpu = statistics.median(run.cpu for run in contestant.runs)
        memory = max(run.memory for run in contestant.runs)
        spread = f"{min(rates):.0f}-{max(rates):.0f}"
        print(f"{contestant.name:38}{contestant.rate:9.0f}{spread:>16}{share:>16}{cpu:8.0f}{memory:6.1f}")
    sender = by_name.get("sender")
    figures: dict[str, Any] = {"size": options.size, "sink": sink.name}
    if sender:
        figures["sender_mails_per_s"] = round(sender.rate, 1)
        for key, name in (("sender_ratio_smtp_source", "smtp-source"), ("ratio_smtplib", "smtplib")):
            figures[key] = round(_ratio(sender, by_name[name]), 3) if name in by_name else None
        for key, name in (
            ("gate_cost_percent", "sender without the gate's UPDATE"),
            ("gate_wait_cost_percent", "sender that never waits at the gate"),
        ):
            if name in by_name:
                figures[key] = round((_ratio(by_name[name], sender) - 1) * 100, 1)
    print(json.dumps(figures))


def _ratio(one: Contestant, other: Contestant) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a.rate / b.rate for a, b in zip(one.runs, other.runs, strict=True))


if __name__ == "__main__":
    main()
