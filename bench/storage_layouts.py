"""The two ways to store sends that `bench.storage` compares, and the ledger's steps as done on each.

Each layout has a database of its own, migrated by the product. The partitioned one replaces lifecycle.sends
and those queries that gain by it (storage_sql/partitioned); everything else is the product's own SQL. Knows
nothing of what is measured how often.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import uuid4

from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction, settings

_SQL = files("bench") / "storage_sql"
_OWN_QUERIES = (
    *("move_arrivals", "plan_arrivals", "judge_cap"),
    *("lock_sends", "pass_gate", "record_outcomes"),
)
_ANSWER_SECONDS = 670
CAP: dict[str, Any] = {
    "rules": ["three_per_week", "one_per_20_hours"],
    "max_sends": [3, 1],
    "windows": [timedelta(days=7), timedelta(hours=20)],
    "tells": True,
    "judge_capped": True,
}


class Users(NamedTuple):
    """Users by number: ``size`` of them from ``start`` on, ``step`` apart."""

    start: int
    step: int
    size: int


class Plan(NamedTuple):
    """A cohort to be planned, and who is in it."""

    campaign: str
    cohort_date: date
    users: Users

    @property
    def arguments(self) -> dict[str, Any]:
        """Parameters of every query over this cohort."""
        return {
            "campaign": self.campaign,
            "cohort_date": self.cohort_date,
            "cohort_dates": [self.cohort_date],
            "batch_size": 500,
            **CAP,
        }


def text(name: str) -> bytes:
    """The text of storage_sql/``name``.sql."""
    return (_SQL / f"{name}.sql").read_bytes()


@dataclass
class Layout:
    """One layout on its connection; ``seconds`` collects every duration measured, by step."""

    name: str
    ledger: LedgerConnection
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def partitioned(self) -> bool:
        """Whether this is the alternative."""
        return self.name == "partitioned"

    def query(self, name: str) -> bytes:
        """The SQL of a step: the layout's own, or the product's."""
        return text(f"partitioned/{name}") if self.partitioned and name in _OWN_QUERIES else query(name)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure a block, with its commit when that is inside."""
        started = time.perf_counter()
        yield
        self.seconds.setdefault(step, []).append(time.perf_counter() - started)

    def create(self, first: date, last: date) -> None:
        """Migrate, and plan two campaigns' cohorts from ``first`` to ``last``, without users."""
        migrate(self.ledger)
        self.ledger.execute(text("add_history_cohorts"), {"first": first, "last": last})
        if self.partitioned:
            self.ledger.execute(text("partitioned/schema"))
        self.ledger.execute(text("create_chunk"))

    def load(self, chunk: dict[str, Any]) -> None:
        """Load a month of history. Measured is the INSERT; the rows are made up before."""
        self.ledger.execute("TRUNCATE history_chunk")
        self.ledger.execute(text("fill_chunk"), chunk)
        with self.without_triggers(), self.timed("load"):
            self.ledger.execute(text("partitioned/load" if self.partitioned else "load"))

    def settle(self) -> None:
        """After the load: fresh statistics, and pages filled by halves again, as the product has them."""
        self.set_fill_factor(50)
        self.ledger.execute("DROP TABLE history_chunk")
        self.ledger.execute("VACUUM ANALYZE lifecycle.sends, lifecycle.cohorts, lifecycle.suppressions")
        if self.partitioned:
            self.ledger.execute("VACUUM ANALYZE lifecycle.send_keys")
        self.ledger.execute("CHECKPOINT")

    @contextmanager
    def without_triggers(self) -> Iterator[None]:
        """History does not begin as planned, which the ledger's rules would refuse."""
        self.ledger.execute("SET session_replication_role = replica")
        yield
        self.ledger.execute("SET session_replication_role = origin")

    def set_fill_factor(self, percent: int) -> None:
        """How full pages are filled by an INSERT."""
        for (table,) in self.ledger.execute(text("tables")).fetchall():
            self.ledger.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")

    def add_cohort(self, plan: Plan) -> None:
        """Freeze the cohort, without users."""
        self.ledger.execute(text("add_cohort"), plan.arguments)

    def plan(self, plan: Plan, step: str) -> None:
        """Plan a cohort. Measured are the key check and the INSERT, not the copying of ids from a source."""
        with planning_transaction(self.ledger):
            self.ledger.execute(query("create_arrivals"))
            self.ledger.execute(text("fill_arrivals"), plan.users._asdict())
            self.ledger.execute(query("analyze_arrivals"))
            with self.timed(step):
                new = self.ledger.execute(self.query("plan_arrivals"), plan.arguments).rowcount
                known = {"known": plan.users.size - new}
                self.ledger.execute(self.query("move_arrivals"), {**plan.arguments, **known})
            self.ledger.execute(query("drop_arrivals"))

    def judge(self, plan: Plan, step: str) -> int:
        """Count slots as limit_rate does, and forget the result; returns the number of refusals."""
        with planning_transaction(self.ledger):
            with self.timed(step):
                refused = self.ledger.execute(self.query("judge_cap"), plan.arguments).rowcount
            self.ledger.execute(query("drop_refused"))
        return refused

    def reserve(self, plan: Plan) -> None:
        """Move the whole cohort from planned to ready."""
        with planning_transaction(self.ledger):
            self.ledger.execute(text("create_nobody_refused"))
            with self.timed("reserve"):
                self.ledger.execute(self.query("reserve_slots"), plan.arguments)
            self.ledger.execute(query("drop_refused"))

    def due(self, plan: Plan) -> list[str]:
        """The cohort's users who may be sent now, in the order in which a task takes them."""
        batches = -(-plan.users.size // 500)
        arguments = {
            "campaign": plan.campaign,
            "cohort_dates": [plan.cohort_date] * batches,
            "batches": list(range(batches)),
        }
        return [user_id for _, user_id in self.ledger.execute(query("due_users"), arguments)]

    def gate_groups(self, plan: Plan, users: Sequence[str], size: int) -> Iterator[None]:
        """Send the cohort on paper, a group at each step of the iterator.

        Each is one transaction in one round trip, as the gate does it: the outcomes of the group before, and
        ``size`` users from ready to sending.
        """
        before: list[tuple[str, Any]] = []
        for start in range(0, len(users) + size, size):
            group = [(user_id, uuid4()) for user_id in users[start : start + size]]
            with self.timed("gate_group"):
                self._commit_group(plan, group, before)
            before = group
            yield

    def _commit_group(self, plan: Plan, asked: list[tuple[str, Any]], sent: list[tuple[str, Any]]) -> None:
        ledger = self.ledger
        recorded = passed = None
        with ledger.pipeline():
            ledger.execute(query("begin"))
            ledger.execute(query("state_settings"), settings("", 3, 5))
            ledger.execute(self.query("lock_sends"), _keys(plan, asked, sent))
            if sent:
                recorded = ledger.execute(self.query("record_outcomes"), _outcomes(plan, sent))
            if asked:
                passed = ledger.execute(self.query("pass_gate"), _questions(plan, asked))
            ledger.execute(query("commit"))
        if recorded is not None and recorded.rowcount != len(sent):
            raise AssertionError(f"{self.name}: {recorded.rowcount} of {len(sent)} outcomes recorded")
        if passed is not None and any(verdict != "passed" for _, verdict in passed):
            raise AssertionError(f"{self.name}: not all {len(asked)} users passed the gate")

    def read_states(self, plan: Plan) -> None:
        """Read how many of the cohort's users are in which state."""
        with self.timed("read_states"):
            self.ledger.execute(query("states_by_cohort"), plan.arguments).fetchall()

    def vacuum(self, step: str) -> None:
        """Vacuum the sends, as autovacuum would after a day's work."""
        with self.timed(step):
            self.ledger.execute("VACUUM lifecycle.sends")

    def drop_detail(self, first: date, cohorts: int) -> None:
        """Drop the detail of the oldest cohorts: an UPDATE, or the partition that holds exactly these."""
        self.ledger.execute(text("close_oldest"), {"first": first, "cohorts": cohorts})
        with self.timed("drop_detail"):
            if self.partitioned:
                self.ledger.execute(text("partitioned/drop_detail"))
            else:
                self.ledger.execute(query("drop_send_detail"), {"keep": timedelta(days=400)})
        self.vacuum("drop_detail_vacuum")

    def updates(self) -> tuple[int, int]:
        """Updates of sends so far, and how many of them were HOT."""
        self.ledger.execute("SELECT pg_stat_force_next_flush()")
        self.ledger.execute("SELECT pg_stat_clear_snapshot()")
        updated, hot = one_row(self.ledger.execute(text("update_counts")))
        return int(updated), int(hot)

    def hot_percent_since(self, before: tuple[int, int]) -> float:
        """How many percent of the updates since `updates` gave ``before`` were HOT."""
        updated, hot = self.updates()
        return 100 * (hot - before[1]) / (updated - before[0])

    def sizes(self) -> dict[str, int]:
        """Bytes on disk."""
        rows, indexes, keys = one_row(self.ledger.execute(text("sizes")))
        return {"rows": rows, "indexes": indexes, "keys": keys, "total": rows + indexes + keys}


def _keys(plan: Plan, *groups: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        "campaign": plan.campaign,
        "user_ids": sorted({user_id for group in groups for user_id, _ in group}),
    }


def _questions(plan: Plan, asked: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        "campaign": plan.campaign,
        "cohort_dates": [plan.cohort_date],
        "smtp_conn_id": "lifecycle_smtp",
        "template_version": "0f1e2d3c4b5a",
        "code_version": "0.1.0+0f1e2d3c4b",
        "probe": False,
        "answer_seconds": _ANSWER_SECONDS,
        "user_ids": [user_id for user_id, _ in asked],
        "attempts": [attempt for _, attempt in asked],
        "address_hashes": [attempt.bytes for _, attempt in asked],
    }


def _outcomes(plan: Plan, sent: list[tuple[str, Any]]) -> dict[str, Any]:
    queue_ids = [attempt.hex[:12] for _, attempt in sent]
    return {
        "campaign": plan.campaign,
        "cohort_dates": [plan.cohort_date],
        "user_ids": [user_id for user_id, _ in sent],
        "attempts": [attempt for _, attempt in sent],
        "verdicts": ["sent"] * len(sent),
        "held_reasons": [None] * len(sent),
        "queue_ids": queue_ids,
        "details": [f"dot: 250 2.0.0 Ok: queued as {queue_id}" for queue_id in queue_ids],
    }
