"""The environment that ``make up`` prints is all that the ``lifecycle`` command needs on the local stack."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.__main__ import _print_links
from local_stack.airflow_environment import (
    APP_DATABASE,
    LEDGER_DATABASE,
    base_environment,
    command_environment,
)
from local_stack.postgres import PostgresServer
from local_stack.settings import PROJECT, Settings
from local_stack.stack import LocalStack
from tests.daily_run import DailyRun, today


def test_links_end_with_lines_to_paste(
    tmp_path: Path, postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = LocalStack(replace(Settings.from_environment({}), state=tmp_path))
    stack.postgres = postgres_server
    _print_links(stack)
    words = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "export " in line]
    pasted = dict(shlex.split(assignment)[0].split("=", 1) for _, assignment in words)
    assert pasted == command_environment(stack.settings, stack.postgres.url)


@pytest.mark.parametrize(
    "command",
    [
        ["preview", "welcome", "--user", "7", "--no-open"],
        ["dry-run", "welcome", "--cohort-from", "{day}", "--cohort-to", "{day}"],
        ["send-test", "welcome", "--user", "7", "--to", "tester@example.com", "--reason", "new text"],
    ],
    ids=lambda command: command[0],
)
def test_command_needs_no_other_environment(
    daily_run: DailyRun, smtp_server, tmp_path: Path, command: list[str]
) -> None:
    daily_run.add_users(7)
    settings = replace(Settings.from_environment({}), state=tmp_path, smtp_port=smtp_server.port)
    databases = {APP_DATABASE: daily_run.source_url, LEDGER_DATABASE: daily_run.ledger_url}
    words = [word.format(day=today()) for word in command]
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle_emails", *words, "--include", str(daily_run.include.path)],
        env={
            **base_environment(settings),
            "PYTHONPATH": str(PROJECT / "plugins"),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),  # nothing of it is asked
            **command_environment(settings, databases.__getitem__),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(smtp_server.accepted) == (command[0] == "send-test")
    assert not (tmp_path / "airflow" / "airflow.db").exists()
