"""Stopped providers: an SMTP connection that refused so much that the fault is its own.

Knows the table that the gate obeys, and tells the team. Must not know SMTP.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from lifecycle_emails.ledger.alerts import create_alert
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction

MAINTENANCE = ("maintenance",)
"""The recipient of alerts that no campaign's run delivers: the maintenance DAG's own callbacks."""


class ProviderStop(NamedTuple):
    """A provider that is stopped: since when, why, and when it was last probed."""

    smtp_conn_id: str
    since: datetime
    reason: str
    probed_at: datetime | None


def stop_provider(ledger: LedgerConnection, smtp_conn_id: str, reason: str) -> None:
    """Stop sending through this connection in every task, and tell the team once."""
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        stopped = ledger.execute(query("stop_provider"), {"smtp_conn_id": smtp_conn_id, "reason": reason})
        if stopped.rowcount:
            facts = {"smtp_conn_id": smtp_conn_id, "reason": reason}
            create_alert(ledger, "provider_stopped", None, None, run="", facts=facts, callbacks=MAINTENANCE)


def stopped_providers(ledger: LedgerConnection) -> list[ProviderStop]:
    """All providers stopped now."""
    return [ProviderStop(*row) for row in ledger.execute(query("stopped_providers"))]


def note_probe(ledger: LedgerConnection, smtp_conn_id: str, *, accepted: bool) -> None:
    """Note a probe; one that was accepted ends the stop."""
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("note_probe"), {"smtp_conn_id": smtp_conn_id, "accepted": accepted})
