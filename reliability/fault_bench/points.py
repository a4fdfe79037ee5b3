"""Named points in the package at which a process kills or stops itself, put there from outside.

Runs in the child process that does the work. It wraps the package's functions and methods
by name; the package knows nothing of it. A point that is never passed is no kill, and the bench says so.

It also keeps the journal: which users passed the gate by a COMMIT whose answer was read, and whose outcomes
were committed. That is the kill point, told for every connection of the task.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

BODY_CUTS = 20
"""In how many places a body is cut: after 0/20, 1/20 ... 19/20 of it. The whole body is a point too."""

STATEMENTS_OF_STEPS = {
    "extract": (
        "state_settings", "lock_campaign", "find_cohort", "neighbouring_cohorts", "freeze_cohort",
        "address_hash_key", "create_arrivals", "copy_sends", "copy_arrivals", "analyze_arrivals",
        "plan_arrivals", "move_arrivals", "refresh_arrivals", "hold_departures", "hold_unaddressed",
        "create_batches", "count_arrivals", "note_audience", "drop_arrivals", "doubt_arrivals",
    ),
    "filter": ("state_settings", "lock_campaign", "judge_again", "hold_unsendable", "count_states"),
    "limit": (
        "state_settings", "lock_campaign", "lock_frequency_cap", "hold_unsendable", "cohorts_held_back",
        "judge_cap", "index_refused", "hold_capped", "reserve_slots", "record_refusals", "drop_refused",
        "count_states", "ready_batches",
    ),
}  # fmt: skip
"""What a cohort's first run asks the ledger, in that order; a test holds it against a run."""
STATEMENTS_OF_GATE = (
    "begin", "state_settings", "lock_sends", "pass_gate", "record_outcomes", "commit",
)  # fmt: skip

PLANNING_POINTS = tuple(
    point
    for step, names in STATEMENTS_OF_STEPS.items()
    for point in (*(f"{step}: before {name}" for name in names), f"{step}: done")
)
BEFORE_GATE_POINTS = (
    "lease: before", "lease: taken", "open: before", "open: done", "offer: before", "offer: done",
    *(f"body: {cut}/{BODY_CUTS}" for cut in range(BODY_CUTS)), "body: whole",
    "ask: before", *(f"gate: before {name}" for name in STATEMENTS_OF_GATE),
)  # fmt: skip
AFTER_GATE_POINTS = (
    "commit: answered, not read", "commit: read", "ask: passed", "dot: before", "dot: inside", "dot: written",
    "answer: read", "record: before", "record: kept in memory", "record: committed",
)  # fmt: skip
LAST_POINTS = ("close: before", "close: done", "lease: before it is given back", "lease: given back")

BEGINNING_OF_THROTTLE = ("send: before state_throttle", "send: before lease_connections")
THROTTLE_POINTS = (*BEGINNING_OF_THROTTLE, "send: before take_grants", "send: before commit")
"""Of a throttled task alone: once where it begins, then around the statement of its grants."""

POINTS = PLANNING_POINTS + BEFORE_GATE_POINTS + AFTER_GATE_POINTS + LAST_POINTS
"""Every named point of a daily run without a throttle."""


class Points:
    """Counts passages, and ends or stops the process at the one asked for."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._kill: tuple[str, int] | None = tuple(job["kill"]) if job.get("kill") else None
        self._stop: tuple[str, int] | None = tuple(job["stop"]) if job.get("stop") else None
        self._delays: dict[str, float] = dict(job.get("delays", {}))
        self._tells = bool(job.get("tell_points"))
        self._journal = os.open(job["journal"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._in_commit = threading.RLock()
        self.step = ""

    def write(self, **entry: Any) -> None:
        """Add a line to the journal. It survives the process: the kernel has it once this returns."""
        os.write(self._journal, (json.dumps(entry) + "\n").encode())

    @contextmanager
    def commit(self) -> Iterator[None]:
        """While a group is being committed and journalled nobody else kills, so the journal is exact."""
        with self._in_commit:
            yield

    def passed(self, point: str) -> None:
        """The process is at this point."""
        here = self.at(point)
        if here == self._kill:
            self.die(point)
        if here == self._stop:
            with self._in_commit:  # stopped in mid-commit it would hold row locks, which is another fault
                os.kill(os.getpid(), signal.SIGSTOP)
        if point in self._delays:
            time.sleep(self._delays[point])

    def at(self, point: str) -> tuple[str, int]:
        """Count a passage."""
        with self._counting:
            self._counts[point] += 1
            if self._tells:
                self.write(point=point)
            return point, self._counts[point]

    def is_here(self, point: str) -> bool:
        """Count a passage whose kill the caller carries out, in the middle of something."""
        return self.at(point) == self._kill

    def die(self, point: str) -> None:
        """SIGKILL, from within."""
        with self._in_commit:
            self.write(killed=point)
            os.kill(os.getpid(), signal.SIGKILL)
            while True:
                time.sleep(1)


def install(points: Points) -> None:
    """Wrap what the points are named after."""
    ledger = _module("ledger")
    for _, name, _ in iter_modules(ledger.__path__):
        if name == "gate":
            _wrap_query("ledger.gate", lambda statement: _gate_statement(points, statement))
        elif name != "queries" and hasattr(_module(f"ledger.{name}"), "query"):
            _wrap_query(
                f"ledger.{name}", lambda statement: points.passed(f"{points.step}: before {statement}")
            )
    _wrap_gate(points)
    _wrap_session(points)
    _wrap_smtp(points)
    _wrap_leases(points)


def _module(name: str) -> Any:
    return import_module(f"lifecycle_emails.{name}")


def _wrap_query(module_name: str, before: Callable[[str], None]) -> None:
    module = _module(module_name)
    original = module.query

    def query(name: str) -> bytes:
        before(name)
        text: bytes = original(name)
        return text

    module.query = query


_user: ContextVar[str | None] = ContextVar("user", default=None)
"""Whose mail the lane has asked the gate about, be it a thread or a greenlet."""

_group = threading.local()
"""What the thread that owns the ledger connection is committing: the gate, its questions and its records."""


def _gate_statement(points: Points, name: str) -> None:
    if name == "commit" and points.is_here("commit: answered, not read"):
        _commit_without_reading(points)
    points.passed(f"gate: before {name}")


def _commit_without_reading(points: Points) -> None:
    """Send COMMIT, wait until its answer lies in the socket, and die without having read it."""
    gate, questions, records = _group.now
    ledger = gate._ledger  # noqa: SLF001  (the gate's own connection: there is no other way to be in its place)
    ledger.execute(b"COMMIT")
    ledger.pgconn.pipeline_sync()
    while ledger.pgconn.flush():
        select.select([], [ledger.pgconn.socket], [], 1)
    select.select([ledger.pgconn.socket], [], [])
    points.write(recorded=[record.user_id for record in records])
    points.write(gated=[question.user_id for question in questions])
    points.die("commit: answered, not read")


def _wrap_gate(points: Points) -> None:
    gate_class = _module("ledger.gate").Gate
    ask, record, commit_group = gate_class.ask, gate_class.record, gate_class._commit_group  # noqa: SLF001

    def asking(self: Any, user_id: str, *arguments: Any, **named: Any) -> Any:
        points.passed("ask: before")
        _user.set(user_id)
        passage = ask(self, user_id, *arguments, **named)
        if passage == "passed":
            points.passed("ask: passed")
        return passage

    def recording(self: Any, *arguments: Any, **named: Any) -> None:
        points.passed("record: before")
        record(self, *arguments, **named)
        points.passed("record: kept in memory")

    def committing(self: Any, questions: Any, records: Any) -> Any:
        _group.now = self, questions, records
        with points.commit():
            passages = commit_group(self, questions, records)
            points.write(recorded=[entry.user_id for entry in records])
            points.write(gated=[user_id for user_id, passage in passages.items() if passage == "passed"])
            points.passed("commit: read")
            if any(entry.attempt for entry in records):
                points.passed("record: committed")
        return passages

    gate_class.ask, gate_class.record, gate_class._commit_group = asking, recording, committing  # noqa: SLF001


def _wrap_session(points: Points) -> None:
    session_class = _module("delivery.smtp_session").SmtpSession
    for name, before, after in (
        ("open", "open: before", "open: done"),
        ("offer", "offer: before", "offer: done"),
        ("finish", None, "answer: read"),
        ("close", "close: before", "close: done"),
    ):
        _wrap_method(points, session_class, name, before, after)


def _wrap_method(points: Points, owner: Any, name: str, before: str | None, after: str) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            points.passed(before)
        value = original(*arguments, **named)
        points.passed(after)
        return value

    setattr(owner, name, wrapped)


def _wrap_smtp(points: Points) -> None:
    """Cut bodies and dots where they are written."""
    connection_class = _module("delivery.smtp_connection").SmtpConnection
    send, ask = connection_class.send, connection_class.ask

    def sending(self: Any, data: bytes, seconds: float) -> None:
        if b"\r\n\r\n" not in data:
            send(self, data, seconds)
            return
        for cut in range(BODY_CUTS):
            if points.is_here(f"body: {cut}/{BODY_CUTS}"):
                send(self, data[: len(data) * cut // BODY_CUTS], seconds)
                points.die(f"body: {cut}/{BODY_CUTS}")
        send(self, data, seconds)
        points.passed("body: whole")

    def asking(self: Any, data: bytes, seconds: float) -> Any:
        if data == b".\r\n":
            points.passed("dot: before")
            for point, written in (("dot: inside", data[:2]), ("dot: written", data)):
                if points.is_here(point):
                    send(self, written, seconds)
                    points.die(point)
            points.write(dot=_user.get())
        answer = ask(self, data, seconds)
        if data == b".\r\n":
            points.write(answered=_user.get())
        return answer

    connection_class.send, connection_class.ask = sending, asking


def _wrap_leases(points: Points) -> None:
    sender = _module("delivery.sender")
    for name, before, after in (
        ("take_leases", "lease: before", "lease: taken"),
        ("give_back_leases", "lease: before it is given back", "lease: given back"),
    ):
        _wrap_method(points, sender, name, before, after)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every line of a journal; none where the process never wrote one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def unanswered_dots(journal: list[dict[str, Any]]) -> set[str]:
    """Users whose dot this process wrote, or tried to, without being given any answer."""
    users: set[str] = set()
    for entry in journal:
        users |= {entry["dot"]} if "dot" in entry else set()
        users -= {entry["answered"]} if "answered" in entry else set()
    return users


def left_open(journal: list[dict[str, Any]]) -> set[str]:
    """Users who passed the gate in this process and whose outcome it did not commit."""
    users: set[str] = set()
    for entry in journal:
        users -= set(entry.get("recorded", ()))
        users |= set(entry.get("gated", ()))
    return users
