"""A gate on a real ledger, opened and closed as a task does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg

from lifecycle_emails.ledger.gate import Gate, GateTerms
from tests.integration.ledger.rows import COHORT_DATE

HASH = bytes(16)


def terms(**fields: Any) -> GateTerms:
    values: dict[str, Any] = {
        "campaign_id": "day4_follow_up",
        "batches": ((COHORT_DATE, 0),),
        "holder": uuid4(),
        "smtp_conn_id": "lifecycle_smtp",
        "template_version": "v1",
        "dot_timeout": 600,
    }
    return GateTerms(**{**values, **fields})


@contextmanager
def open_gate(url: str, **fields: Any) -> Iterator[Gate]:
    gate = Gate(lambda: psycopg.connect(url), terms(**fields))
    try:
        yield gate
    finally:
        gate.close(timeout=5)
