"""A process that plans cohorts as the tasks of a daily run do, and says what it took.

Started by `bench.planning`. Reads one JSON object per line (a day and a campaign), answers each with one.
Seconds of CPU are those of this process and of all processes of the ledger's server.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def memory(name: str) -> float:
    """MiB of this process: VmRSS is what it holds now, VmHWM the most that it ever held."""
    lines = _read("/proc/self/status").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


class Meter:
    """Adds up seconds of the clock, of this process and of a server's processes, by name."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster
        self._server: dict[str, float] = {}  # by process, those that have ended too
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Add what the block takes to ``name``."""
        before = self._now()
        yield
        for place, (start, end) in enumerate(zip(before, self._now(), strict=True)):
            self.spent[name][place] += end - start

    def take(self) -> dict[str, list[float]]:
        """What was added up since the last call: seconds of the clock, of the client, of the server."""
        spent, self.spent = dict(self.spent), defaultdict(lambda: [0.0, 0.0, 0.0])
        return spent

    def look(self) -> None:
        """Note what the server's processes have spent; to be called before one of them ends."""
        children = _read(f"/proc/{self._postmaster}/task/{self._postmaster}/children")
        for process in children.split():
            fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
            if fields:  # else it has just ended
                self._server[process] = (int(fields[11]) + int(fields[12])) / _TICKS

    def _now(self) -> tuple[float, float, float]:
        self.look()
        return time.perf_counter(), time.process_time(), sum(self._server.values())


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123  (little is imported here)
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    """Plan what standard input names."""
    idle = memory("VmRSS")
    from bench.planning_steps import Planner  # noqa: PLC0415  (what it loads is part of what is measured)

    include, ledger_url, source_url, postmaster = sys.argv[1:]
    planner = Planner(include, ledger_url, source_url, Meter(int(postmaster)))
    for line in sys.stdin:
        answer: dict[str, Any] = planner.plan(**json.loads(line))
        print(json.dumps({**answer, "memory_mib": memory("VmHWM") - idle}), flush=True)


if __name__ == "__main__":
    main()
