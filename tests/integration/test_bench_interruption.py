"""A benchmark that is ended by SIGTERM, as by a time-out or make, leaves no process and no folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

MARK = "BENCH_UNDER_TEST"
ROOT = Path(__file__).parents[2]
PLANNING_OF_BENCH = """
import sys
from bench.__main__ import _options, _planning
from local_stack.interruption import sigterm_interrupts

with sigterm_interrupts():
    _planning(_options(sys.argv[1:]))
"""
COMMANDS = {
    "make bench": ["-m", "bench"],
    "planning of make bench": ["-c", PLANNING_OF_BENCH],
    "make bench-million": ["-m", "bench.million"],
    "sender": ["-m", "bench.sender"],
    "planning": ["-m", "bench.planning"],
    "throttle": ["-m", "bench.throttle"],
    "connections": ["-m", "bench.connections"],
    "storage": ["-m", "bench.storage"],
}


def processes(mark: str, data: Path | None = None) -> list[psutil.Process]:
    """Those started by the benchmark, also indirectly, and those of its server, which know no mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == mark or (data and process.cwd() == str(data)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def data_of_ready_server(mark: str, bench: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert bench.poll() is None
        for process in processes(mark):
            try:
                data = Path(process.cwd())
                if process.name() == "postgres" and "ready" in (data / "postmaster.pid").read_text():
                    return data
            except (psutil.Error, OSError):
                continue
        time.sleep(0.02)
    raise AssertionError("the benchmark started no server")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_benchmark_ended_by_sigterm_leaves_nothing_behind(command: list[str], tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    state, temporary = tmp_path / "state", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, MARK: mark, "TMPDIR": str(temporary), "STATE_DIR": str(state)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "plugins"), str(ROOT)])
    with (tmp_path / "said").open("wb") as said:
        bench = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        data = data_of_ready_server(mark, bench)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(60) == 130
        assert processes(mark, data) == []
        assert not data.exists()
        assert list(temporary.iterdir()) == []
    finally:
        for process in processes(mark):
            process.kill()
        bench.wait(60)
    assert (tmp_path / "said").read_text().endswith("Stopped; no process is left.\n")
