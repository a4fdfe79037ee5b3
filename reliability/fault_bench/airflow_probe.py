"""What a DAG file of the bench adds to a task's process: it notes what happens, and kills at a named point.

It wraps names of the package that stay (the gate's group commit, the two halves of an SMTP dialogue,
`on_kill`); the package knows nothing of it. Every note is one line of a file, written before the process goes
on, so it survives a SIGKILL. It must not know the ledger's content: what must be in doubt follows from these
notes alone.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NOTES, KILLS, CLAIMS, CALLBACK = "notes.jsonl", "kills.json", "claims", "callback.json"

SendingPoint = Literal["offered", "before_gate", "after_gate", "before_dot", "answered", "recorded"]
"""Where a sending process can be killed: the whole body but for the dot is at the server; a group of the
gate is about to be committed; it is committed and no lane knows; a lane is about to write the dot; a lane has
read the answer; an outcome is committed."""

Point = SendingPoint | Literal["telling", "told"]
"""... and one that tells of an alert: the callback has done nothing yet; it is about to return."""

Target = Literal["task", "supervisor", "both"]
"""Whom to kill: the process that sends, its Airflow supervisor, or both at once, as a machine that dies."""


@dataclass(frozen=True)
class Kill:
    """Kill when a process gets to ``point`` for the ``nth`` time since the kill before."""

    point: Point
    nth: int = 1
    target: Target = "task"


class Probe:
    """The notes and kills of one play, in one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = os.open(folder / NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._hits: Counter[tuple[int, str]] = Counter()
        self.lock = threading.RLock()

    def note(self, event: str, **facts: Any) -> None:
        """Write a line; it stays when this process is killed."""
        line = {"event": event, "pid": os.getpid(), "at": time.time(), **facts}
        os.write(self._notes, (json.dumps(line) + "\n").encode())

    def reached(self, point: Point) -> None:
        """Kill here when it is this point's turn. Called with the lock, so that no commit is half noted."""
        kills = self._folder / KILLS
        if not kills.exists():
            return
        plan = json.loads(kills.read_text())
        turn = len(list((self._folder / CLAIMS).iterdir()))
        if turn >= len(plan) or plan[turn]["point"] != point:
            return
        self._hits[turn, point] += 1
        if self._hits[turn, point] < plan[turn]["nth"] or not self._claim(turn):
            return
        target: Target = plan[turn]["target"]
        self.note("killed" if target in {"task", "both"} else "supervisor_killed", point=point, target=target)
        if target in {"supervisor", "both"}:
            os.kill(os.getppid(), signal.SIGKILL)
        if target in {"task", "both"}:
            os.kill(os.getpid(), signal.SIGKILL)

    def _claim(self, turn: int) -> bool:
        try:
            os.close(os.open(self._folder / CLAIMS / str(turn), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def watch(folder: str) -> None:
    """Wrap the package's names in this process. A DAG file of the bench calls it before it builds its DAG."""
    # imported here, since the DAG file says from where
    from lifecycle_emails.delivery import sender  # noqa: PLC0415
    from lifecycle_emails.delivery.smtp_session import SmtpSession  # noqa: PLC0415
    from lifecycle_emails.ledger.gate import Gate  # noqa: PLC0415
    from lifecycle_emails.operators import SendBatchOperator  # noqa: PLC0415

    if hasattr(Gate, "watched"):
        return
    Gate.watched = True  # type: ignore[attr-defined]
    probe = Probe(Path(folder))
    _wrap(Gate, "_commit_group", functools.partial(_commit_group, probe))
    _wrap(Gate, "_record", functools.partial(_record, probe))
    _wrap(SmtpSession, "offer", functools.partial(_offer, probe))
    _wrap(SmtpSession, "finish", functools.partial(_finish, probe))
    _wrap(SendBatchOperator, "on_kill", functools.partial(_on_kill, probe))
    _wrap(sender, "take_leases", functools.partial(_take_leases, probe))


def unanswered(notes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Tell from the notes who was gated last by a process that recorded no outcome, or only a doubt.

    These must be in doubt. The value is the process's id.
    """
    left: dict[str, int] = {}
    for note in notes:
        if note["event"] == "passed":
            left |= dict.fromkeys(note["users"], note["pid"])
        elif note["event"] == "recorded":
            for user, outcome in note["outcomes"].items():
                if outcome != "in_doubt":
                    left.pop(user, None)
    return left


def teller(folder: str) -> Callable[[Mapping[str, Any]], None]:
    """Give a callback that notes whom it was told of, and fails as often as the play says."""

    def tell(context: Mapping[str, Any]) -> None:
        probe = Probe(Path(folder))
        probe.reached("telling")
        probe.note("told", alert=context["alert"]["id"])
        probe.reached("told")
        behaviour = Path(folder) / CALLBACK
        failures = json.loads(behaviour.read_text())["failures"] if behaviour.exists() else 0
        if failures:
            behaviour.write_text(json.dumps({"failures": failures - 1}))
            raise ConnectionError("the chat server is away")

    return tell


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, wrapped)


def _take_leases(
    probe: Probe, original: Callable[..., Any], ledger: Any, campaign_id: str, group: Any, holder: Any
) -> Any:
    probe.note("began", holder=str(holder), supervisor=os.getppid())
    return original(ledger, campaign_id, group, holder)


def _commit_group(probe: Probe, original: Callable[..., Any], gate: Any, questions: Any, records: Any) -> Any:
    with probe.lock:
        if questions:
            probe.note("asking", users=[question.user_id for question in questions])
            probe.reached("before_gate")
        passages = original(gate, questions, records)
        _note_recorded(probe, records)
        passed = [user_id for user_id, passage in passages.items() if passage == "passed"]
        if passed:
            probe.note("passed", users=passed)
            probe.reached("after_gate")
        if records:
            probe.reached("recorded")
        return passages


def _record(
    probe: Probe, original: Callable[..., Any], gate: Any, ledger: Any, records: Any, **settings: Any
) -> None:
    with probe.lock:
        original(gate, ledger, records, **settings)
        _note_recorded(probe, records)


def _note_recorded(probe: Probe, records: Any) -> None:
    outcomes = {record.user_id: record.recorded_as.value for record in records if record.attempt is not None}
    if outcomes:
        probe.note("recorded", outcomes=outcomes)


def _offer(probe: Probe, original: Callable[..., Any], *args: Any) -> Any:
    refused = original(*args)
    if refused is None:
        with probe.lock:
            probe.reached("offered")
    return refused


def _finish(probe: Probe, original: Callable[..., Any], *args: Any) -> Any:
    with probe.lock:
        probe.reached("before_dot")
    outcome = original(*args)
    with probe.lock:
        probe.reached("answered")
    return outcome


def _on_kill(probe: Probe, original: Callable[..., Any], *args: Any) -> Any:
    probe.note("stop")
    return original(*args)
