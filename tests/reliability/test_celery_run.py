"""Where Redis is missing, the replay and acceptance say which command installs it, and start nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


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
