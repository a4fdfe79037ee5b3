"""A gate that waits for somebody's open transaction: the runbook's query names the session that is in the way."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from uuid import uuid4

from lifecycle_emails.ledger.attempt import Passage
from local_stack.settings import PROJECT
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.rows import add_cohort, add_sends, connect

SECONDS = 30


def query_of_runbook() -> bytes:
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
    found = re.search(r"^### gate-slow\n.*?^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].encode()


def test_query_of_the_runbook_names_the_session_that_the_gate_waits_for(ledger_database: str) -> None:
    with (
        connect(ledger_database) as ledger,
        closing(connect(ledger_database)) as somebody,
        open_gate(ledger_database) as gate,
        ThreadPoolExecutor(1) as pool,
    ):
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="ready")
        somebody.execute("BEGIN")
        somebody.execute("LOCK TABLE lifecycle.sends IN EXCLUSIVE MODE")
        asked = pool.submit(gate.ask, "1", uuid4(), HASH)
        waiting: list[tuple[str, list[int]]] = []
        until = time.monotonic() + SECONDS
        while not waiting and time.monotonic() < until:
            rows = ledger.execute(query_of_runbook()).fetchall()
            # who is about to wait has a blocker a moment before the wait has a name
            waiting = [(row[3], row[5]) for row in rows if row[3] and row[5]]
        assert waiting == [("Lock", [somebody.info.backend_pid])]
        ledger.execute("SELECT pg_terminate_backend(%s)", (somebody.info.backend_pid,))
        assert asked.result(SECONDS) is Passage.PASSED
