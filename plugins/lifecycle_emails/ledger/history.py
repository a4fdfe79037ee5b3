"""All that the ledger knows of one user: what was decided, when, by which run, and what is in the way.

Knows named queries. Must not know how it is told (see `why_text`). It reads, and changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.orders import hash_of_address
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row
from lifecycle_emails.ledger.throttle import ThrottleNow, throttles_now
from lifecycle_emails.message_id import message_key

SENDING_STEPS = ("send_batch", "probe")
READ_TIMEOUT_SECONDS = 600
"""Finding an address reads the whole table of sends."""

_STEPS_THAT_HOLD = {
    "capped": ("limit_rate",),
    "daily_limit": ("limit_rate",),
    "suppressed": ("filter_ledger", "limit_rate", *SENDING_STEPS),
    "stale": ("filter_ledger", "limit_rate", *SENDING_STEPS),
    "invalid_address": ("extract_cohort", *SENDING_STEPS),
    "left_audience": ("extract_cohort", *SENDING_STEPS),
    "render_failed": SENDING_STEPS,
}


@dataclass(frozen=True)
class Event:
    """One line of a send's history. ``run``: the run during whose step it happened, if one is known."""

    happened_at: datetime
    from_state: str
    to_state: str
    held_reason: str | None
    detail: str | None
    actor: str
    run: str | None


@dataclass(frozen=True)
class CapRefusal:
    """The frequency cap refused: ``slots_taken`` of the rule's slots were taken then."""

    refused_at: datetime
    rule: str
    slots_taken: int


@dataclass(frozen=True)
class Slot:
    """A send that counts in the user's frequency caps since ``since``; None while it is under way."""

    campaign: str
    state: str
    since: datetime | None


@dataclass(frozen=True)
class InForce:
    """What a person (or the package) has forbidden and not lifted. ``campaign`` None: all."""

    kind: str
    campaign: str | None
    since: datetime
    reason: str
    by: str


@dataclass(frozen=True)
class SendHistory:
    """One campaign's mail to the user: its row, by which runs it came to this, and its history in order.

    ``message_key`` is the part of the Message-ID before the @. ``template_version`` and ``code_version`` are
    those of the last attempt.
    """

    campaign: str
    cohort_date: date
    batch: int
    state: str
    held_reason: str | None
    attempts: int
    planned_at: datetime
    ready_at: datetime | None
    not_before: datetime | None
    gate_at: datetime | None
    answer_due: datetime | None
    sent_at: datetime | None
    template_version: str | None
    code_version: str | None
    queue_id: str | None
    detail: str | None
    deadline: datetime
    volume_verdict: str | None
    message_key: UUID
    planned_by: str | None
    ready_by: str | None
    sent_by: str | None
    events: tuple[Event, ...]
    refusals: tuple[CapRefusal, ...]


@dataclass(frozen=True)
class UserHistory:
    """One user, as of ``now`` by the ledger's clock; without ``user_id`` an address of nobody.

    ``throttles`` are those of all SMTP connections: the ledger does not know which campaign uses which.
    """

    user_id: str | None
    now: datetime
    sends: tuple[SendHistory, ...]
    suppressions: tuple[InForce, ...]
    halts: tuple[InForce, ...]
    slots: tuple[Slot, ...]
    throttles: dict[str, ThrottleNow]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, but for times and identifiers, which the caller writes as text."""
        return asdict(self)


def history_of_user(ledger: LedgerConnection, user_id: str) -> UserHistory:
    """Read everything about one user.

    Raises LedgerError when the ledger has neither a send nor a suppression of this user.
    """
    found = _history(ledger, user_id, None)
    if not found.sends and not found.suppressions:
        raise LedgerError(
            f"the ledger knows no user {user_id}: no run has found this id in an audience. Is the id right, "
            "and has the run of the user's day been? Nothing was changed"
        )
    return found


def histories_of_address(ledger: LedgerConnection, address: str) -> list[UserHistory]:
    """Everything about the users whose last known address this is, or else about the address alone.

    Raises InvalidAddress for no address, and LedgerError where nobody had it and nothing forbids it.
    """
    hashed = hash_of_address(ledger, address)
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=READ_TIMEOUT_SECONDS, roll_back=True):
        users = [row[0] for row in ledger.execute(query("users_of_address"), {"address_hash": hashed})]
    if users:
        return [_history(ledger, user_id, hashed) for user_id in users]
    alone = _history(ledger, None, hashed)
    if not alone.suppressions:
        raise LedgerError(
            "the ledger knows nobody by this address (hashes of long finished cohorts are dropped); look the "
            "user's id up in the source and ask by that. Nothing was changed"
        )
    return [alone]


def _history(ledger: LedgerConnection, user_id: str | None, hashed: bytes | None) -> UserHistory:
    arguments = {"user_id": user_id, "address_hash": hashed}
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=READ_TIMEOUT_SECONDS, roll_back=True):
        (now,) = one_row(ledger.execute(query("time_now")))
        suppressions = tuple(InForce(*row) for row in ledger.execute(query("why_suppressions"), arguments))
        sends = _sends(ledger, arguments)
        halts = tuple(InForce(*row) for row in ledger.execute(query("why_halts")))
        slots = tuple(Slot(*row) for row in ledger.execute(query("why_slots"), arguments))
        throttles = throttles_now(ledger)
    return UserHistory(user_id, now, sends, suppressions, halts, slots, throttles)


def _sends(ledger: LedgerConnection, arguments: dict[str, Any]) -> tuple[SendHistory, ...]:
    (namespace,) = one_row(ledger.execute(query("message_id_namespace")))
    rows = ledger.execute(query("why_sends"), arguments).fetchall()
    events = ledger.execute(query("why_events"), arguments).fetchall()
    refusals = ledger.execute(query("why_refusals"), arguments).fetchall()
    cohorts = {row[:2] for row in rows} | {row[:2] for row in events}
    runs = _Runs(ledger, sorted(cohorts))
    return tuple(
        _send(
            row,
            message_key(namespace, row[0], arguments["user_id"]),
            runs,
            [event for event in events if event[0] == row[0]],
            [CapRefusal(*refusal[2:]) for refusal in refusals if refusal[0] == row[0]],
        )
        for row in rows
    )


def _send(
    row: tuple[Any, ...], key: UUID, runs: _Runs, events: list[tuple[Any, ...]], refusals: list[CapRefusal]
) -> SendHistory:
    cohort = row[:2]
    planned_at, ready_at, gate_at = row[6], row[7], row[9]
    told = [
        Event(*(*rest, runs.run_at((campaign, day), rest[0], _steps_that_did(rest[3]))))
        for campaign, day, *rest in events
    ]
    runs_of_steps = (
        runs.run_at(cohort, planned_at, ("extract_cohort",)),
        runs.run_at(cohort, ready_at, ("limit_rate",)),
        runs.run_at(cohort, gate_at, SENDING_STEPS),
    )
    values: tuple[Any, ...] = (*row, key, *runs_of_steps, tuple(told), tuple(refusals))
    return SendHistory(*values)


def _steps_that_did(held_reason: str | None) -> tuple[str, ...]:
    return _STEPS_THAT_HOLD.get(held_reason or "", SENDING_STEPS)


class _Runs:
    """Which run had begun which step of a cohort at a time: rows of sends do not name their run."""

    def __init__(self, ledger: LedgerConnection, cohorts: list[tuple[Any, ...]]) -> None:
        arguments = {"campaigns": [one for one, _ in cohorts], "cohort_dates": [day for _, day in cohorts]}
        self._steps = ledger.execute(query("why_steps"), arguments).fetchall()

    def run_at(self, cohort: tuple[Any, ...], at: datetime | None, steps: tuple[str, ...]) -> str | None:
        """The run that was the last to begin one of ``steps`` for ``cohort`` up to ``at``."""
        if at is None:
            return None
        mine = [row for row in self._steps if row[:2] == cohort and row[2] in steps]
        begun = bisect_right([row[4] for row in mine], at)
        return str(mine[begun - 1][3]) if begun else None
