"""What Celery workers say they were handed: how often the broker delivered the same task.

Read from the workers' own logs, which Celery writes, not from anything of the system under test.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_RECEIVED = re.compile(r"Task [\w.]+\[([\w-]+)\] received")
_STARTED = re.compile(r"\[([\w-]+)\] Executing workload in Celery: .*?task_id=(\w+)")
_REFUSED = re.compile(r"\[([\w-]+)\] Task already running elsewhere")


@dataclass(frozen=True)
class Deliveries:
    """`received` counts deliveries by Celery's task id; the other two are of Airflow's tasks alone.

    `started` counts, for each of Airflow's task ids, how often a worker set out to execute a task of it.
    `refused` counts the executions that Airflow's API refused since the task was running elsewhere.
    """

    received: Counter[str]
    started: Counter[str]
    refused: int

    @property
    def redelivered(self) -> int:
        """Deliveries beyond each task's first."""
        return self.received.total() - len(self.received)


def read_deliveries(logs: Iterable[Path]) -> Deliveries:
    """Read the logs of all workers of one broker."""
    received, started, refused = Counter[str](), Counter[str](), 0
    for log in logs:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if found := _RECEIVED.search(line):
                    received[found[1]] += 1
                elif found := _STARTED.search(line):
                    started[found[2]] += 1
                elif _REFUSED.search(line):
                    refused += 1
    return Deliveries(received, started, refused)
