"""What the tests of a ledger that went back share: the gate's answer, and a person's release."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.gate import Gate, GateTerms
from lifecycle_emails.ledger.witness import (
    Witness,
    trust_again,
)
from tests.integration.ledger.rows import (
    COHORT_DATE,
)

CAMPAIGN = "day4_follow_up"


def ask_gate(url: str, user_id: str = "1") -> Passage:
    terms = GateTerms(CAMPAIGN, [(COHORT_DATE, 0)], uuid4(), "lifecycle_smtp", "v1", 600)
    gate = Gate(lambda: psycopg.connect(url), terms)
    try:
        return gate.ask(user_id, uuid4(), bytes(16))
    finally:
        gate.close(5)


def now() -> datetime:
    return datetime.now(UTC)


def let_go(ledger: psycopg.Connection, witness: Witness | None, since: datetime | None) -> int:
    return trust_again(ledger, witness, since=since, now=now(), reason="restored", actor="ada")


def say_moved(ledger: psycopg.Connection) -> None:
    """As after a failover: the ledger knows another timeline."""
    ledger.execute("UPDATE lifecycle.known_server SET timeline = timeline + 1")
