"""A named person releases users: whom the server rejected, or the cap refused for good, is judged again.

Knows named queries. Must not know where the order came from. Released users become ``planned``, no more:
suppression, cap and deadline decide anew, and a mail that a server has accepted is never released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction
from lifecycle_emails.ledger.settling import NAMED, named


@dataclass(frozen=True)
class Released:
    """How many users were released, and which of their cohorts are past their deadline."""

    users: int
    too_late: tuple[date, ...]


def release(
    ledger: LedgerConnection, campaign_id: str, user_ids: Sequence[str], *, reason: str, actor: str = ""
) -> Released:
    """Release all these users of a campaign, or none. History keeps ``actor`` and ``reason``.

    Raises LedgerError, and changes nothing: without a reason; when one of them is unknown, is neither
    ``rejected`` nor held as ``capped``, or has a mail that bounced after it was accepted.
    """
    if not reason.strip():
        raise LedgerError("give a reason; nothing was changed")
    arguments: dict[str, Any] = {"campaign": campaign_id, "user_ids": list(user_ids)}
    with ledger_transaction(ledger, actor=actor, lock_timeout=30, statement_timeout=300):
        ledger.execute(query("lock_campaign"), arguments)
        rows = ledger.execute(query("lock_released"), arguments).fetchall()
        _check(rows, campaign_id, user_ids)
        ledger.execute(query("release_users"), {**arguments, "detail": f"released by hand: {reason.strip()}"})
    return Released(len(rows), tuple(sorted({row[1] for row in rows if row[5]})))


def _check(rows: Sequence[tuple[Any, ...]], campaign_id: str, user_ids: Sequence[str]) -> None:
    found = {row[0] for row in rows}
    if unknown := [user_id for user_id in user_ids if user_id not in found]:
        raise LedgerError(f"not in campaign {campaign_id}: {named(unknown)}; nothing was changed")
    if others := [f"user {row[0]} is {row[4]}" for row in rows if not row[2]]:
        raise LedgerError(
            f"only rejected or capped users are released; {'; '.join(others[:NAMED])}. Nothing was changed"
        )
    if accepted := [row[0] for row in rows if row[3] is not None]:
        raise LedgerError(
            f"the server accepted the mail of {named(accepted)} before it bounced; nothing was changed. It is"
            " never sent again"
        )
