"""``make bench`` and ``make bench-peers``: this package and others send the same mails, in one run.

The null sink is Postfix's smtp-sink, or one of our own. Three tables: in the clear, after STARTTLS, and in a
real Airflow. In each, everybody sends in turns, round by round; what counts are ratios within a round. In
every round the sink's count has to equal the ledger's. Draws a picture; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.airflow_stage import OPERATOR_STAGE, PACKAGE_STAGE, running_airflow
from bench.arguments import MOST_CONNECTIONS, whole_number
from bench.chart import draw
from bench.contest import Contestant, named, ratio, table
from bench.loops import LOOP, SOURCE, smtp_source
from bench.peers import NODEMAILER, POST_OFFICE, Peers
from bench.sender import (
    SENDER,
    SLOW,
    Ground,
    count_copies,
    figures,
    least_size,
    loops,
    own_senders,
    rounded,
)
from bench.sending_place import LEDGER_SETTINGS, MOST_USERS, ROOT, Load, make_include
from bench.sinks import postfix_program, running_sink
from bench.variants import BY_STANDARD_LIBRARY, ONE_BY_ONE, WITHOUT_UPDATE
from local_stack.errors import StackError
from local_stack.interruption import sigterm_interrupts
from local_stack.loopback_certificate import make_certificate
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer

VARIANTS = (WITHOUT_UPDATE, ONE_BY_ONE, BY_STANDARD_LIBRARY)
AIRFLOW_ROUNDS = 2
LEAST_SIZE = least_size(Load.processes)
PEERS_PART = 4
"""Peers take long, and send so many times fewer mails."""
STAGE_OF_SENT = 2
"""The stage in Airflow sends so many times more mails than the sender: a task takes a second to start."""
USERS_OF_OPERATORS = 60
"""An EmailOperator takes a second for what a sender does in less than a millisecond."""
PLANNED_OF_SENT, LEAST_PLANNED, MOST_PLANNED = 50, 1_000, 1_000_000
"""Planning is measured with so many times more users: a million with the default size, and never more."""


@dataclass(frozen=True)
class Tables:
    """The contestants of each table, after their rounds."""

    clear: list[Contestant]
    tls: list[Contestant]
    airflow: list[Contestant]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; return the exit code."""
    options = _options(arguments)
    started = time.monotonic()
    try:
        peers = Peers(options.peers) if options.peers else None
        if peers is not None:
            peers.install()
        tables, sink_name = _rounds(options, peers)
        planning = _planning(options)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    _print(tables, options, sink_name)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(
        draw(
            {
                "In the clear": tables.clear,
                "After STARTTLS": tables.tls,
                "In a real Airflow": tables.airflow,
            },
            own="send",
            title="Mails per second to a null sink, on one machine",
        )
    )
    print(f"\nThe picture of these tables is {options.picture}.")
    print(json.dumps(_figures(tables, planning, time.monotonic() - started)))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=_sizes(),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--size",
        type=whole_number(LEAST_SIZE, MOST_USERS // STAGE_OF_SENT),
        default=20_000,
        help="mails of each contestant and round, see below (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--connections",
        type=whole_number(1, MOST_CONNECTIONS),
        default=32,
        help="SMTP connections of each own sender",
    )
    parser.add_argument("--peers", type=Path, help="compare with others too, installed into this folder")
    parser.add_argument("--folder", help="where databases and Airflow live; fsync is on")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "performance.svg")
    return parser.parse_args(arguments)


def _sizes() -> str:
    """What the size does to each part, for the help."""
    slow = "\n".join(f"  {name}: SIZE / {SLOW[name]}" for name in VARIANTS if name in SLOW)
    return f"""\
mails a round, from SIZE (make bench SIZE=...):
  smtp-source, smtplib, the sender and its other variants: SIZE
{slow}
  the peers, with --peers: SIZE / {PEERS_PART}
  the send_batch stage in Airflow: {STAGE_OF_SENT} x SIZE, in at most {AIRFLOW_ROUNDS} rounds
  EmailOperator: {USERS_OF_OPERATORS} users, whatever SIZE is
users planned, once: {PLANNED_OF_SENT} x SIZE, but at least {LEAST_PLANNED:,} and at most {MOST_PLANNED:,}"""


def _rounds(options: argparse.Namespace, peers: Peers | None) -> tuple[Tables, str]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        folder.chmod(0o711)
        server = PostgresServer(folder / "postgres", free_port(), LEDGER_SETTINGS)
        stack.callback(server.remove)
        server.start()
        sink = stack.enter_context(running_sink())
        ground = Ground(
            folder, server, sink, Load(options.size, options.rounds, connections=options.connections)
        )
        print(f"The sink is {sink.name}.", file=sys.stderr, flush=True)
        clear = _table(ground, peers, VARIANTS)
        print(f"At most {count_copies(ground)} copy of each mail.", file=sys.stderr, flush=True)
        certificate = make_certificate(folder / "sink.pem")
        with running_sink(certificate=certificate) as tls_sink:
            tls = _table(replace(ground, sink=tls_sink, certificate=certificate), peers)
        airflow = _airflow_table(ground)
        return Tables(clear, tls, airflow), sink.name


def _table(ground: Ground, peers: Peers | None, variants: Sequence[str] = ()) -> list[Contestant]:
    """Everybody but Airflow, in turns; the senders' processes end with the table."""
    with ExitStack() as stack:
        contestants = loops(ground) + own_senders(ground, stack, variants)
        if peers is not None:
            size = ground.load.size // PEERS_PART
            contestants += peers.contestants(
                ground.folder, ground.server, ground.sink, size, ground.certificate
            )
        for _ in range(ground.load.rounds):
            for contestant in contestants:
                contestant.compete(ground.sink)
    return contestants


def _airflow_table(ground: Ground) -> list[Contestant]:
    """The package's stage and mapped operators in Airflow, and smtp-source beside the running Airflow."""
    folder, sink = ground.folder / "stage", ground.sink
    load = replace(
        ground.load,
        size=STAGE_OF_SENT * ground.load.size,
        rounds=min(AIRFLOW_ROUNDS, ground.load.rounds),
    )
    folder.mkdir()
    make_include(folder, load, batches=1)
    with running_airflow(
        folder, ground.server, sink, [load.size] * load.rounds, mapped_users=USERS_OF_OPERATORS
    ) as airflow:
        days = iter(range(load.rounds))
        contestants = [
            Contestant(PACKAGE_STAGE, lambda: airflow.stage(next(days))),
            Contestant(OPERATOR_STAGE, airflow.mapped_operators),
        ]
        if postfix_program(SOURCE):
            contestants.insert(0, Contestant(SOURCE, lambda: smtp_source(sink, load.size)))
        for _ in range(load.rounds):
            for contestant in contestants:
                contestant.compete(sink)
    return contestants


def planned_users(size: int) -> int:
    """With how many users planning is measured, where others send ``size`` mails a round."""
    return min(max(size * PLANNED_OF_SENT, LEAST_PLANNED), MOST_PLANNED)


def _planning(options: argparse.Namespace) -> dict[str, Any]:
    """What `bench.planning` says of its largest cohort, in a process of its own."""
    size = planned_users(options.size)
    command = [sys.executable, "-m", "bench.planning", "--size", str(size), "--campaigns", "1"]
    command += ["--folder", options.folder] if options.folder else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate()
        finally:  # killed, as subprocess.run would do it, it would leave its server behind
            process.terminate()
            process.wait()
    if process.returncode != 0:
        raise StackError("Planning could not be measured; its error stands above.")
    planned: list[dict[str, Any]] = json.loads(said.splitlines()[-1])["planned"]
    return max(planned, key=lambda one: int(one["size"]))


def _print(tables: Tables, options: argparse.Namespace, sink_name: str) -> None:
    cores, load = os.cpu_count(), os.getloadavg()[2]
    print(f"{options.size} mails a round, {options.rounds} rounds, {cores} cores; the machine's load was "
          f"{load:.1f} over the last 15 minutes, this run's own included.")  # fmt: skip
    print(f"\nIn the clear, to {sink_name}\n\n{table(tables.clear, SOURCE)}")
    print(f"\nAfter STARTTLS, to the built-in sink\n\n{table(tables.tls, LOOP)}")
    print(f"\nIn a real Airflow, to {sink_name}\n\n{table(tables.airflow, SOURCE)}")


def _figures(tables: Tables, planning: dict[str, Any], seconds: float) -> dict[str, Any]:
    stage = named(tables.airflow, PACKAGE_STAGE)
    sender = named(tables.clear, SENDER)
    own = figures(tables.clear)
    if stage is None:
        raise RuntimeError("the stage in Airflow did not compete")
    return {
        "mails_per_s": round(stage.rate, 1),
        "ratio_email_operator": rounded(ratio(stage, named(tables.airflow, OPERATOR_STAGE))),
        "ratio_post_office": rounded(ratio(sender, named(tables.clear, POST_OFFICE))),
        "ratio_nodemailer": rounded(ratio(sender, named(tables.clear, NODEMAILER))),
        "ratio_smtplib": own["ratio_smtplib"],
        "ratio_smtp_source": rounded(ratio(stage, named(tables.airflow, SOURCE))),
        "sender_ratio_smtp_source": own["sender_ratio_smtp_source"],
        "plan_seconds_per_million": rounded(planning["seconds_per_million"]),
        "peak_mib_per_task": round(max(run.memory for run in stage.runs), 1),
        "gate_cost_percent": own["gate_cost_percent"],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
