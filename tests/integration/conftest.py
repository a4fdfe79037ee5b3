"""A daily run of a test's own against a scripted SMTP server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daily_run import DailyRun
from tests.scripted_smtp_server import ScriptedSmtpServer


@pytest.fixture
def smtp_server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer() as server:
        yield server


@pytest.fixture
def daily_run(
    tmp_path: Path, ledger_database: str, source_database: str, smtp_server: ScriptedSmtpServer
) -> Iterator[DailyRun]:
    run = DailyRun(tmp_path, ledger_database, source_database, smtp_server.port)
    yield run
    run.close()
