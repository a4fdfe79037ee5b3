"""What the Airflow rows of the fault bench rest on: kills at the named point, and who must be in doubt after them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from local_stack.settings import PROJECT
from reliability.fault_bench.airflow_probe import CLAIMS, KILLS, NOTES, Kill, unanswered

REACHES_IT_THREE_TIMES = """
import sys
from pathlib import Path
from reliability.fault_bench.airflow_probe import Probe
probe = Probe(Path(sys.argv[1]))
for _ in range(3):
    probe.reached("offered")
    probe.reached("answered")
    probe.note("went on")
"""


def play(folder: Path) -> int:
    command = [sys.executable, "-c", REACHES_IT_THREE_TIMES, str(folder)]
    return subprocess.run(command, cwd=PROJECT, check=False).returncode


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / NOTES).read_text().splitlines()]


def test_probe_kills_the_process_at_the_point_and_time_planned_and_once(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / KILLS).write_text(json.dumps([asdict(Kill("answered", 2)), asdict(Kill("offered"))]))

    assert play(tmp_path) == -signal.SIGKILL
    assert events(tmp_path) == ["went on", "killed"]
    assert play(tmp_path) == -signal.SIGKILL
    assert events(tmp_path) == ["went on", "killed", "killed"]
    assert play(tmp_path) == 0
    assert events(tmp_path)[3:] == ["went on"] * 3


@pytest.mark.parametrize(
    ("outcome", "left"), [("sent", {"2": 7}), ("retry", {"2": 7}), ("in_doubt", {"1": 7, "2": 7})]
)
def test_probe_leaves_in_doubt_who_was_gated_and_has_no_recorded_answer(
    outcome: str, left: dict[str, int]
) -> None:
    notes = [
        {"event": "began", "pid": 7},
        {"event": "passed", "pid": 7, "users": ["1", "2"]},
        {"event": "recorded", "pid": 7, "outcomes": {"1": outcome}},
        {"event": "killed", "pid": 7},
    ]

    assert unanswered(notes) == left


def test_probe_takes_a_later_attempt_for_the_one_in_doubt() -> None:
    notes = [
        {"event": "passed", "pid": 7, "users": ["1"]},
        {"event": "recorded", "pid": 7, "outcomes": {"1": "no_dot"}},
        {"event": "passed", "pid": 8, "users": ["1"]},
    ]

    assert unanswered(notes) == {"1": 8}


def test_probe_finds_every_name_of_the_package_that_it_watches(tmp_path: Path) -> None:
    """A DAG file of the bench that fails to load is only waited for, so a renamed method would look like a hang."""
    program = "import sys; from reliability.fault_bench.airflow_probe import watch; watch(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT, check=True)
