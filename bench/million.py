"""``make bench-million``: the whole daily run of a million users in a real Airflow, from trigger to success.

A run of ten thousand goes first: to have everything warm, and to compare the memory of the tasks. The sink's
count has to equal the ledger's. Prints what each task took; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.airflow_stage import BenchedAirflow, DailyRun, running_airflow
from bench.arguments import MOST_CONNECTIONS, whole_number
from bench.loops import SOURCE, smtp_source
from bench.sending_place import LEDGER_SETTINGS, MOST_USERS, Load, make_include
from bench.sinks import Sink, postfix_program, running_sink
from local_stack.errors import StackError
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer

MILLION = 1_000_000
SMALL = 10_000
_SOURCE_MAILS = 50_000
_SERVER = {**LEDGER_SETTINGS, "shared_buffers": "1GB", "max_wal_size": "8GB"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Send both days; return the exit code."""
    options = _options(arguments)
    small = min(SMALL, options.size)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
            folder.chmod(0o711)
            server = PostgresServer(folder / "postgres", free_port(), _SERVER)
            stack.callback(server.remove)
            server.start()
            sink = stack.enter_context(running_sink())
            make_include(folder, Load(options.size, 1, options.slots, options.connections), batches=1)
            airflow = stack.enter_context(
                running_airflow(folder, server, sink, [small, options.size], slots=options.slots)
            )
            print(f"Airflow is up; the sink is {sink.name}.", flush=True)
            before = _day(airflow, sink, 0, small)
            day = _day(airflow, sink, 1, options.size)
            source = _smtp_source(sink)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    stage = day.mails / day.stage_seconds
    figures = {
        "users": day.mails,
        "seconds": round(day.run_seconds, 1),
        "task_seconds": {name: round(seconds, 1) for name, seconds in day.task_seconds.items()},
        "mails_per_s": round(stage, 1),
        "ratio_smtp_source": round(stage / source, 3) if source else None,
        "peak_mib_per_task": {str(run.mails): round(run.memory, 1) for run in (before, day)},
        "sink": sink.name,
    }
    print(json.dumps(figures))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.million", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=whole_number(1, MOST_USERS), default=MILLION, help="users of the day")
    parser.add_argument("--slots", type=whole_number(1), default=2, help="sending tasks at once")
    parser.add_argument(
        "--connections",
        type=whole_number(1, MOST_CONNECTIONS),
        default=32,
        help="SMTP connections of each task",
    )
    parser.add_argument("--folder", help="where databases and Airflow live; fsync is on")
    return parser.parse_args(arguments)


def _day(airflow: BenchedAirflow, sink: Sink, number: int, users: int) -> DailyRun:
    """Send a day, and hold the counts against each other. StackError: they differ."""
    before = sink.mails()
    day = airflow.send_day(number)
    taken = sink.mails() - before
    if (day.mails, taken) != (users, users):
        raise StackError(f"Of {users} users {day.mails} are recorded as sent; the sink took {taken} mails.")
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in day.task_seconds.items())
    print(f"{users:,} users: {day.run_seconds:.1f} s from trigger to success; {steps}; "
          f"{day.memory:.1f} MiB beyond an idle task", flush=True)  # fmt: skip
    return day


def _smtp_source(sink: Sink) -> float | None:
    if not postfix_program(SOURCE):
        return None
    return smtp_source(sink, _SOURCE_MAILS).rate


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
