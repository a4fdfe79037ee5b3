"""Measure one unpartitioned table of sends against date partitions beside a key table.

Both are filled with the same history on one embedded PostgreSQL with fsync on, then taken through the
ledger's steps in turns, so that whatever else the machine does hits both. The figures and the decision stand
in docs/adr/0001-one-unpartitioned-table.md. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from bench.arguments import whole_number
from bench.storage_layouts import Layout, Plan, Users, text
from bench.storage_plans import whole_table_scans
from lifecycle_emails.ledger.session import LedgerConnection
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer

NAMES = ("unpartitioned", "partitioned")
COHORTS = 365
MONTH = 30
HISTORY_FILL_FACTOR = 90
"""Rows are planned at half a page and grow; this is how full their pages are when all are sent."""
SERVER = {
    "shared_buffers": "1GB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum": "off",  # it would hit one layout and not the other; vacuuming is measured by itself
}
STEPS = {
    "load": "load the history",
    "plan_new": "plan a cohort of new users",
    "plan_again": "plan the same cohort again",
    "plan_known": "plan a cohort of users with history",
    "judge_new": "count slots of new users",
    "judge_known": "count slots of users with history",
    "reserve": "planned to ready, whole cohort",
    "gate_group": "gate group (sent + sending)",
    "read_states": "read a cohort's states",
    "vacuum": "vacuum after the cohorts",
    "drop_detail": f"drop detail of {MONTH} cohorts",
    "drop_detail_vacuum": "vacuum after that",
}
HOT = ("reserve", "gate")
"""Steps whose updates should stay on their page and touch no index."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and leave nothing behind. Exit code 0 unless something failed."""
    options = _options(arguments)
    started = time.monotonic()
    with _server(options.folder, keep=options.keep) as server, ExitStack() as stack:
        layouts = [Layout(name, stack.enter_context(_database(server, name))) for name in NAMES]
        result = Comparison(layouts, options.rows, options.group, options.repetitions).run()
    result["seconds"] = round(time.monotonic() - started, 1)
    line = json.dumps(_rounded(result))
    if options.json:
        options.json.write_text(line + "\n")
    print(_table(result))
    print(line)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=__doc__)
    parser.add_argument(
        "--rows",
        type=whole_number(2 * COHORTS),
        default=10_000_000,
        help="rows of history (default: %(default)s)",
    )
    parser.add_argument(
        "--group", type=whole_number(1), default=64, help="users in one gate group (default: %(default)s)"
    )
    parser.add_argument(
        "--repetitions",
        type=whole_number(1, MONTH),
        default=3,
        help="cohorts planned and sent (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to FILE too")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ.get("STATE_DIR", ".local")),
        help="a server of its own keeps its data below, 1.3 GB per million rows (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the server running, to look at plans; the next run removes it",
    )
    return parser.parse_args(arguments)


@contextmanager
def _server(folder: Path, *, keep: bool) -> Iterator[PostgresServer]:
    folder = folder / "bench-storage"
    PostgresServer(folder, free_port()).remove()  # what a killed measurement left
    server = PostgresServer(folder, free_port(), SERVER)
    try:
        server.start()
        yield server
    finally:
        if keep:
            show(f"left running on port {server.port}; password of postgres: {server.folder / 'password'}")
        else:
            server.remove()


@contextmanager
def _database(server: PostgresServer, name: str) -> Iterator[LedgerConnection]:
    server.create_database(name)
    with server.connect(name) as connection:
        yield connection


class Comparison:
    """One run over both layouts."""

    def __init__(self, layouts: Sequence[Layout], rows: int, group: int, repetitions: int) -> None:
        self._layouts = layouts
        self._group = group
        self._repetitions = repetitions
        self._users_per_day = rows // (2 * COHORTS)
        self._users = self._users_per_day * COHORTS
        self._cohort_users = max(10, self._users // 50)
        # the newest cohort of the history was sent yesterday, and the next one is due today
        self._today = datetime.now(UTC).date() - timedelta(days=4)
        self._first = self._today - timedelta(days=COHORTS)

    def run(self) -> dict[str, Any]:
        """Take both layouts through all steps; the result is what is printed at the end."""
        self._load()
        loaded = [layout.sizes() for layout in self._layouts]
        hot = [self._send_cohort(number) for number in range(self._repetitions)]
        self._judge_users_with_history()
        scans = self._whole_table_scans()
        worked = [layout.sizes() for layout in self._layouts]
        for layout in self._layouts:
            layout.vacuum("vacuum")
        for layout in self._layouts:
            show(f"{layout.name}: drop the detail of the oldest {MONTH} cohorts")
            layout.drop_detail(self._first, MONTH)
        result: dict[str, Any] = {
            "rows": 2 * self._users,
            "cohorts": COHORTS,
            "cohort_users": self._cohort_users,
            "group": self._group,
            "repetitions": self._repetitions,
            "machine": _machine(self._layouts[0]),
            "whole_table_scans": scans,
        }
        for number, layout in enumerate(self._layouts):
            figures = _figures(layout)
            result[layout.name] = {
                **figures,
                "gate_users_per_second": self._group / figures["gate_group_seconds"],
                "hot_percent": {
                    step: statistics.median(one[layout.name][step] for one in hot) for step in HOT
                },
                "bytes": loaded[number],
                "bytes_after_cohorts": worked[number],
                "bytes_after_retention": layout.sizes(),
            }
        return result

    def _turns(self, number: int) -> Sequence[Layout]:
        """Both layouts; who goes first changes from turn to turn."""
        return self._layouts if number % 2 == 0 else self._layouts[::-1]

    def _load(self) -> None:
        for layout in self._layouts:
            layout.create(self._first, self._today - timedelta(days=1))
            layout.ledger.execute(text("add_suppressions"), {"users": self._users})
            layout.set_fill_factor(HISTORY_FILL_FACTOR)
        for number, first_day in enumerate(range(0, COHORTS, MONTH)):
            last_day = min(first_day + MONTH, COHORTS)
            chunk = {
                "first": self._first,
                "users_per_day": self._users_per_day,
                "from_user": first_day * self._users_per_day,
                "to_user": last_day * self._users_per_day,
            }
            for layout in self._turns(number):
                layout.load(chunk)
            took = ", ".join(f"{layout.name} {layout.seconds['load'][-1]:.1f} s" for layout in self._layouts)
            show(f"loaded {last_day} of {COHORTS} cohorts; this month: {took}")
        for layout in self._layouts:
            layout.settle()

    def _send_cohort(self, number: int) -> dict[str, dict[str, float]]:
        """Plan a cohort of new users, send it on paper; returns by layout the share of HOT updates."""
        users = Users(start=self._users + number * self._cohort_users, step=1, size=self._cohort_users)
        plan = Plan("day4_follow_up", self._today + timedelta(days=number), users)
        hot: dict[str, dict[str, float]] = {}
        show(f"cohort {number + 1} of {self._repetitions}: plan {users.size} new users, judge, reserve")
        for layout in self._turns(number):
            layout.add_cohort(plan)
            layout.plan(plan, "plan_new")
        for layout in self._turns(number):
            layout.plan(plan, "plan_again")
        for layout in self._turns(number):
            layout.judge(plan, "judge_new")
        for layout in self._turns(number):
            counts = layout.updates()
            layout.reserve(plan)
            hot[layout.name] = {"reserve": layout.hot_percent_since(counts)}
        show(f"cohort {number + 1} of {self._repetitions}: gate, {self._group} users at a time")
        before = [layout.updates() for layout in self._layouts]
        self._gate(plan)
        for layout, counts in zip(self._layouts, before, strict=True):
            hot[layout.name]["gate"] = layout.hot_percent_since(counts)
        for layout in self._turns(number):
            layout.read_states(plan)
        self._newest = plan
        return hot

    def _gate(self, plan: Plan) -> None:
        runs = [layout.gate_groups(plan, layout.due(plan), self._group) for layout in self._layouts]
        for number in itertools.count():
            ended = [next(run, "ended") == "ended" for run in (runs if number % 2 == 0 else runs[::-1])]
            if any(ended):
                return

    def _judge_users_with_history(self) -> None:
        """Users spread evenly over the year, so that their rows lie all over the table."""
        users = Users(start=0, step=self._users // self._cohort_users, size=self._cohort_users)
        plan = Plan("win_back", self._today, users)
        show(f"plan and judge {users.size} users with history")
        for layout in self._layouts:
            layout.add_cohort(plan)
            layout.plan(plan, "plan_known")
        for number in range(self._repetitions):
            refused = {layout.judge(plan, "judge_known") for layout in self._turns(number)}
            if len(refused) != 1:
                raise AssertionError(f"the layouts disagree on who is over the cap: {refused}")

    def _whole_table_scans(self) -> list[str]:
        """Queries that would read all sends while the statistics know nothing of the newest cohort."""
        return whole_table_scans(self._layouts[0].ledger, self._newest)


def _figures(layout: Layout) -> dict[str, Any]:
    """Medians of what was measured, in seconds; of the load the sum, and its first and last whole month."""
    load = layout.seconds["load"]
    medians = {f"{step}_seconds": statistics.median(layout.seconds[step]) for step in STEPS}
    return {
        **medians,
        "load_seconds": sum(load),
        "load_first_month_seconds": load[0],
        "load_last_month_seconds": load[-2],
    }


def _machine(layout: Layout) -> dict[str, Any]:
    return {
        "postgresql": layout.ledger.info.parameter_status("server_version"),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1024**3),
        **SERVER,
    }


def _table(result: dict[str, Any]) -> str:
    layouts = [result[name] for name in NAMES]
    rows: list[tuple[str, list[str]]] = [("", list(NAMES))]
    rows += [(words, [_time(one[f"{step}_seconds"]) for one in layouts]) for step, words in STEPS.items()]
    rows += [
        (f"HOT updates, {step}", [f"{one['hot_percent'][step]:.1f} %" for one in layouts]) for step in HOT
    ]
    rows += [
        (f"on disk, {part}", [f"{one['bytes'][part] / 1e6:.0f} MB" for one in layouts])
        for part in layouts[0]["bytes"]
    ]
    return "\n".join(f"{words:40}{''.join(f'{cell:>16}' for cell in cells)}" for words, cells in rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def show(line: str) -> None:
    """Print a line of progress at once, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {line}", flush=True)


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
