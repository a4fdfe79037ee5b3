"""Stopped providers: stopped once however many tasks say so, and told of once."""

from __future__ import annotations

from lifecycle_emails.ledger.provider import note_probe, stop_provider, stopped_providers
from tests.integration.ledger.rows import connect


def test_provider_that_two_tasks_stop_is_stopped_once_and_told_of_once(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        stop_provider(ledger, "lifecycle_smtp", "twenty refusals in a row")
        stop_provider(ledger, "lifecycle_smtp", "thirty of the last hundred refused")
        [stopped] = stopped_providers(ledger)
        assert (stopped.smtp_conn_id, stopped.reason) == ("lifecycle_smtp", "twenty refusals in a row")
        assert ledger.execute("SELECT kind FROM lifecycle.alerts").fetchall() == [("provider_stopped",)]
        note_probe(ledger, "lifecycle_smtp", accepted=True)
        assert stopped_providers(ledger) == []
