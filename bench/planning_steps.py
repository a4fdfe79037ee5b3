"""The steps of planning as the tasks of a daily run do them, with a meter around each statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.frequency_cap import load_cap_rules
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.planning import extract_cohort
from lifecycle_emails.ledger.session import LedgerConnection, ledger_session


class StepMeter(Protocol):
    """See `bench.planning_process.Meter`."""

    def measured(self, name: str) -> AbstractContextManager[None]:
        """Add what the block takes to ``name``."""

    def look(self) -> None:
        """Note what the server's processes have spent."""

    def take(self) -> dict[str, list[float]]:
        """What was added up since the last call."""


class Planner:
    """Plans on connections of its own, new ones for each step, as tasks have them."""

    def __init__(self, include: str, ledger_url: str, source_url: str, meter: StepMeter) -> None:
        self._include = Path(include)
        self._ledger_url = ledger_url
        self._source_url = source_url
        self._meter = meter

    def plan(self, *, campaign: str, day: str) -> dict[str, Any]:
        """Plan the cohort of a day; what each step and statement took, and how many users became what."""
        read = load_campaign(self._include, campaign)
        audience = Audience.load(self._include, read)
        rules = load_cap_rules(self._include, read.frequency_cap)
        dates = [date.fromisoformat(day)]
        with self._step("extract") as ledger, psycopg.connect(self._source_url, autocommit=True) as source:
            extracted = extract_cohort(ledger, source, read, audience, dates[0], with_earlier=False)
        with self._step("filter") as ledger:
            filtered = filter_ledger(ledger, read, dates)
        with self._step("limit") as ledger:
            limited = limit_rate(
                ledger, read, rules, dates, callbacks=("bench",), run="bench", max_groups=1024
            )
        return {
            "spent": self._meter.take(),
            "found": extracted.found,
            "new": extracted.new,
            "held": sum(filtered.held.values()),
            "ready": limited.ready,
            "groups": len(limited.groups),
        }

    @contextmanager
    def _step(self, name: str) -> Iterator[LedgerConnection]:
        with self._meter.measured(name), ledger_session(self._connect) as ledger:
            yield ledger
            self._meter.look()

    def _connect(self) -> LedgerConnection:
        return psycopg.connect(self._ledger_url, cursor_factory=_metered_cursor(self._meter))


def _metered_cursor(meter: StepMeter) -> type[psycopg.Cursor[Any]]:
    """A cursor class that meters each named query; a COPY as a whole, reading the source included."""
    folder = files("lifecycle_emails") / "sql" / "queries"
    names = {file.read_bytes(): file.name.removesuffix(".sql") for file in folder.iterdir()}

    class MeteredCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> MeteredCursor:
            with meter.measured(f"query {names.get(query, 'other')}"):
                return super().execute(query, *arguments, **options)

        @contextmanager
        def copy(self, statement: Any, *arguments: Any, **options: Any) -> Iterator[psycopg.Copy]:
            with (
                meter.measured(f"query {names.get(statement, 'other')}"),
                super().copy(statement, *arguments, **options) as copy,
            ):
                yield copy

    return MeteredCursor
