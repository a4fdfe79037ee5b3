"""A whole daily run with the ledger and the source behind PgBouncer in transaction mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_stack.postgres import PostgresServer
from reliability.pgbouncer import INSTALL, pgbouncer_program, running_pgbouncer
from tests.daily_run import DailyRun, today
from tests.scripted_smtp_server import ScriptedSmtpServer

pytestmark = pytest.mark.skipif(pgbouncer_program() is None, reason=f"PgBouncer is not installed: {INSTALL}")

USERS = range(1, 41)


def test_daily_run_behind_a_transaction_pooler_sends_everybody_one(
    tmp_path: Path,
    postgres_server: PostgresServer,
    ledger_database: str,
    source_database: str,
    smtp_server: ScriptedSmtpServer,
) -> None:
    ledger, source = (url.rpartition("/")[2] for url in (ledger_database, source_database))
    with running_pgbouncer(postgres_server, [ledger, source], pool_size=3) as pooler:
        run = DailyRun(tmp_path, pooler.url(ledger), pooler.url(source), smtp_server.port, batch_size=10)
        run.ledger.prepare_threshold = None
        run.add_users(*USERS)
        for _ in range(2):
            run.send(run.plan(today()))
        states = run.states()
        run.close()
    assert states == {str(user): "sent" for user in USERS}
    assert smtp_server.copies() == {("welcome", str(user)): 1 for user in USERS}
