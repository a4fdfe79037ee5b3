"""A person's orders to the ledger: suppress and unsuppress, halt and resume. Each with a reason and a name.

Knows named queries. Must not know where the order came from (command, Airflow); the caller names the actor,
and without one the database role stands in. Filter and gate obey within one statement of the order's
commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle_emails.address import address_hash, parse_recipient
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row


def suppress(
    ledger: LedgerConnection,
    *,
    user_id: str | None = None,
    address: str | None = None,
    campaign_id: str | None = None,
    reason: str,
    actor: str = "",
) -> bool:
    """Never mail this user, or this address whoever has it: in one campaign, or in all for None.

    The address itself is not kept, only its keyed hash. False when it was suppressed before. Raises
    LedgerError without exactly one of ``user_id`` and ``address``, or without a reason; InvalidAddress for
    no address.
    """
    whom = _whom(ledger, user_id, address)
    name = "suppress_user" if user_id is not None else "suppress_address"
    return _order(ledger, name, {**whom, "campaign": campaign_id}, reason, actor) > 0


def unsuppress(
    ledger: LedgerConnection,
    *,
    user_id: str | None = None,
    address: str | None = None,
    campaign_id: str | None = None,
    reason: str,
    actor: str = "",
) -> bool:
    """Lift exactly the suppression that `suppress` with the same arguments made; False when there is none.

    Who was held for it is judged again by the campaign's next run before the cohort's deadline.
    """
    whom = _whom(ledger, user_id, address)
    return _order(ledger, "lift_suppression", {**whom, "campaign": campaign_id}, reason, actor) > 0


def halt(ledger: LedgerConnection, *, campaign_id: str | None = None, reason: str, actor: str = "") -> bool:
    """Stop all sending, or one campaign's, at the gate: in running tasks too. False when halted before."""
    return _order(ledger, "halt", {"campaign": campaign_id}, reason, actor) > 0


def resume(ledger: LedgerConnection, *, campaign_id: str | None = None, reason: str, actor: str = "") -> bool:
    """Lift that halt; what waited goes out with the next run. False when there was none."""
    return _order(ledger, "resume", {"campaign": campaign_id}, reason, actor) > 0


def halt_in_force(ledger: LedgerConnection, campaign_id: str | None) -> str:
    """Who halted exactly this campaign, or all for None, when and why; empty without such a halt."""
    row = ledger.execute(query("halt_in_force"), {"campaign": campaign_id}).fetchone()
    return row[0] if row else ""


def halts_that_hold(ledger: LedgerConnection, campaign_id: str | None) -> list[tuple[str | None, str]]:
    """Halts in force that stop this campaign, or any for None: which (None: all), and by whom, when, why."""
    return ledger.execute(query("halts_that_hold"), {"campaign": campaign_id}).fetchall()


def unseen_users(ledger: LedgerConnection, user_ids: Sequence[str]) -> list[str]:
    """Those of the users whom no run has planned, in order: perhaps mistyped, perhaps still to come."""
    return [row[0] for row in ledger.execute(query("unseen_users"), {"user_ids": list(user_ids)})]


def hash_of_address(ledger: LedgerConnection, address: str) -> bytes:
    """The keyed hash under which this ledger knows an address. Raises InvalidAddress for no address."""
    (key,) = one_row(ledger.execute(query("address_hash_key")))
    return address_hash(key, parse_recipient(address))


def known_campaigns(ledger: LedgerConnection) -> list[str]:
    """Ids of the campaigns that the ledger has planned a cohort of, in order."""
    return [row[0] for row in ledger.execute(query("known_campaigns"))]


def _whom(ledger: LedgerConnection, user_id: str | None, address: str | None) -> dict[str, Any]:
    if (user_id is None) == (address is None):
        raise LedgerError("name exactly one of a user and an address; nothing was changed")
    if address is None:
        return {"user_id": user_id, "address_hash": None}
    return {"user_id": None, "address_hash": hash_of_address(ledger, address)}


def _order(ledger: LedgerConnection, name: str, arguments: dict[str, Any], reason: str, actor: str) -> int:
    if not reason.strip():
        raise LedgerError("give a reason; nothing was changed")
    with ledger_transaction(ledger, actor=actor, lock_timeout=10, statement_timeout=30):
        return ledger.execute(query(name), {**arguments, "reason": reason, "actor": actor}).rowcount
