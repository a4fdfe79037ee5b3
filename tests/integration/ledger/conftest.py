"""Ledgers in a state that several modules begin with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.ledger.rows import add_cohort, add_sends, connect


@pytest.fixture
def ready_ledger(ledger_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A ledger in which users 1 to 3 are ready."""
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2", "3"], state="ready")
        yield ledger


@pytest.fixture
def ledger(ledger_database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(ledger_database) as connection:
        yield connection
