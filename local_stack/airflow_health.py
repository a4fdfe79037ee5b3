"""Wait until an Airflow is healthy, whatever runs its tasks."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import httpx

from local_stack.airflow_api import AirflowApi
from local_stack.errors import StackError
from local_stack.processes import Processes

START_SECONDS = 180
SECONDS_BETWEEN_LINES = 10

Report = Callable[[str], None]


def wait_until_healthy(
    processes: Processes,
    open_api: Callable[[], AirflowApi],
    parts: Mapping[str, str],
    report: Report,
    seconds: float = START_SECONDS,
) -> None:
    """Return once every named process is alive and its part of Airflow has a fresh heartbeat.

    :param parts: names of processes, and of what they are in `AirflowApi.healthy_since`

    StackError: a process has ended, or is not healthy in time; the message names the log to read.
    """
    started = said = time.monotonic()
    moment = datetime.now(UTC)
    while True:
        for name in parts:
            processes.check(name)
        healthy = _healthy_since(moment, open_api)
        waiting = [name for name, part in parts.items() if part not in healthy]
        if not waiting:
            return
        now = time.monotonic()
        if now - started > seconds:
            name = waiting[0]
            raise StackError(
                f"{name} is not healthy after {seconds:.0f} s. Its log, {processes.log(name)}, "
                f"closes with:\n{processes.last_words(name)}"
            )
        if now - said > SECONDS_BETWEEN_LINES:
            said = now
            report(f"  waiting for {', '.join(waiting)} ({now - started:.0f} s)")
        time.sleep(0.2)


def _healthy_since(moment: datetime, open_api: Callable[[], AirflowApi]) -> set[str]:
    try:
        with open_api() as api:
            return api.healthy_since(moment)
    except httpx.HTTPError:  # not listening yet
        return set()
