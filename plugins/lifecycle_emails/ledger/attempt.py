"""The words of one attempt to send: what the gate answers, and what the ledger makes of the outcome.

Must not know how either comes about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Passage(StrEnum):
    """The gate's answer for one attempt. Only PASSED allows the dot."""

    PASSED = "passed"
    SUPPRESSED = "suppressed"
    STALE = "stale"
    HALTED = "halted"
    PROVIDER_STOPPED = "provider_stopped"
    NOT_APPROVED = "not_approved"
    """The volume breaker holds the row's cohort back; the row stays ready."""
    LOST = "lost"
    """The row is no longer ready: another attempt has it, or it was judged again."""
    NOT_COMMITTED = "not_committed"
    """No answer to COMMIT was read, or the sender is stopping."""


class RecordedAs(StrEnum):
    """What the ledger makes of an attempt."""

    SENT = "sent"
    REJECTED = "rejected"
    RETRY = "retry"
    """Not accepted, and not the recipient's fault: ready again after a pause."""
    NO_DOT = "no_dot"
    """Passed the gate, but the dot was never written: ready again at once."""
    IN_DOUBT = "in_doubt"
    HELD = "held"
    """Never offered to the server, with a held reason."""


@dataclass(frozen=True)
class Record:
    """One outcome for the ledger. ``attempt`` is the gate's token, None for what never reached the gate."""

    user_id: str
    attempt: UUID | None
    recorded_as: RecordedAs
    held_reason: str | None = None
    queue_id: str | None = None
    detail: str | None = None
