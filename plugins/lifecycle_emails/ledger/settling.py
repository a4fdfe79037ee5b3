"""A named person settles doubts: as sent, or to be sent again. What evidence proves needs no person.

Knows named queries. Must not know where the order came from. "Send again" only puts the user back to be
judged: suppression, cap and deadline decide anew. Whether the process that wrote the dot is dead, no ledger
can know: the caller must say so to the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction

NAMED = 10
"""A message names at most this many users."""


class SettleAs(StrEnum):
    """A person's verdict on a doubt."""

    SENT = "sent"
    SEND_AGAIN = "send-again"


@dataclass(frozen=True)
class Which:
    """Which doubts of a campaign: these users, the cohorts between two dates (both included), or all."""

    user_ids: Sequence[str] | None = None
    cohort_from: date | None = None
    cohort_to: date | None = None


@dataclass(frozen=True)
class Settled:
    """What was settled: users, the times their dots were allowed, and cohorts already past their deadline."""

    users: int
    first_gate_at: datetime
    last_gate_at: datetime
    too_late: tuple[date, ...]


def settle(
    ledger: LedgerConnection,
    campaign_id: str,
    which: Which,
    verdict: SettleAs,
    *,
    reason: str,
    actor: str = "",
) -> Settled:
    """Settle all doubts that ``which`` names, or none of them. History keeps ``actor`` and ``reason``.

    Raises LedgerError, and changes nothing: without a reason; when nobody named is in doubt, or one of the
    users named is not; when one of them may still be answered (the message says until when to wait); when
    "send again" is asked for a mail that the server is known to have accepted.
    """
    if not reason.strip():
        raise LedgerError("give a reason; nothing was changed")
    arguments: dict[str, Any] = {
        "campaign": campaign_id,
        "user_ids": None if which.user_ids is None else list(which.user_ids),
        "cohort_from": which.cohort_from,
        "cohort_to": which.cohort_to,
    }
    with ledger_transaction(ledger, actor=actor, lock_timeout=30, statement_timeout=300):
        ledger.execute(query("lock_campaign"), arguments)
        ledger.execute(query("lock_frequency_cap"))
        rows = ledger.execute(query("lock_doubts"), arguments).fetchall()
        _check(rows, campaign_id, which, verdict)
        again = verdict is SettleAs.SEND_AGAIN
        changes = {
            **arguments,
            "user_ids": [row[0] for row in rows],
            "state": "planned" if again else "sent",
            "detail": f"settled by hand as {'to be sent again' if again else 'sent'}: {reason.strip()}",
        }
        if ledger.execute(query("settle_by_hand"), changes).rowcount != len(rows):
            raise LedgerError(
                "a task has begun to send these batches again; nothing was changed. Wait for it"
            )
    return Settled(
        users=len(rows),
        first_gate_at=min(row[3] for row in rows),
        last_gate_at=max(row[3] for row in rows),
        too_late=tuple(sorted({row[1] for row in rows if row[6]})) if again else (),
    )


def _check(rows: Sequence[tuple[Any, ...]], campaign_id: str, which: Which, verdict: SettleAs) -> None:
    found = {row[0] for row in rows}
    missing = [user_id for user_id in which.user_ids or () if user_id not in found]
    if missing:
        raise LedgerError(f"not in doubt in campaign {campaign_id}: {named(missing)}; nothing was changed")
    if not rows:
        raise LedgerError(
            f"nothing of campaign {campaign_id} that was named is in doubt; nothing was changed"
        )
    waiting = [row for row in rows if row[5]]
    if waiting:
        until = max(row[4] for row in waiting)
        raise LedgerError(
            f"an answer may still come for {named([row[0] for row in waiting])}: their process may be alive. "
            f"Nothing was changed; wait until {until.isoformat(timespec='seconds')}"
        )
    accepted = [row[0] for row in rows if row[2] is not None]
    if accepted and verdict is SettleAs.SEND_AGAIN:
        raise LedgerError(
            f"the server accepted the mail of {named(accepted)}; nothing was changed. Settle them as sent"
        )


def named(user_ids: Sequence[str]) -> str:
    """Users for a message: a few ids, the rest as a count."""
    more = len(user_ids) - NAMED
    listed = ", ".join(user_ids[:NAMED])
    return f"user{'s' if len(user_ids) != 1 else ''} {listed}{f' and {more} more' if more > 0 else ''}"
