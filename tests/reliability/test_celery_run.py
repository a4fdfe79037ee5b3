"""What runs on Celery leaves nothing behind when it is stopped, and says what is missing before it starts."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_stack.processes import MARK


@pytest.mark.parametrize("command", ["reliability.incident", "reliability.acceptance"])
def test_without_redis_the_command_that_installs_it_is_all_that_is_said(command: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", command],
        cwd=root,
        env={**os.environ, "PATH": str(tmp_path), "STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert said.startswith("This needs a real Redis, and redis-server is not installed. Run: ")
    assert said.endswith(("sudo apt-get install redis-server", "brew install redis"))
    assert not (tmp_path / "state").exists()


# A job in the background of a shell's script starts with SIGINT ignored, and so do its children: CI may be one.
UNTIL_STOPPED = """
import signal, sys, time
from reliability.celery_run import run_on_celery

signal.signal(signal.SIGINT, signal.default_int_handler)

def play(stack):
    stack.start_servers()
    print(stack.settings.state, stack.postgres.data, flush=True)
    time.sleep(600)

sys.exit(run_on_celery("stopped", play))
"""


def processes_of(state: str, data: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == state or process.cwd() == data:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNTIL_STOPPED],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "STATE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        state, data = run.stdout.readline().split()
        assert len(processes_of(state, data)) >= 3  # PostgreSQL, Redis, the catcher
        run.send_signal(number)
        assert run.wait() == 130
    assert processes_of(state, data) == []
