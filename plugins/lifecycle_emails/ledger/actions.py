"""The audit: who ordered what, why, and what came of it, written in the transaction of the act itself.

Knows named queries. Must not know what the acts are, nor Airflow. An order that names a run is carried out
once for that run, whatever is cleared or retried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, planning_transaction
from lifecycle_emails.order import Order


@dataclass(frozen=True)
class Actor:
    """Who gives an order.

    ``name``: as Airflow or the database knows them. ``run_key``: DAG id and run id, where a run of Airflow
    gives the order.
    """

    name: str
    kind: Literal["airflow", "command"]
    run_key: str | None = None


@dataclass(frozen=True)
class Done:
    """What came of an order, in words without addresses; ``before``: the same run had done it before."""

    result: str
    before: bool = False


@dataclass(frozen=True)
class Audited:
    """One thing that was done. ``action_id``: None for an answer about a cohort of unusual size."""

    action_id: int | None
    happened_at: datetime
    actor: str
    actor_kind: str
    database_role: str
    action: str
    arguments: dict[str, Any]
    reason: str
    result: str | None
    run_key: str | None


def carry_out_once(
    ledger: LedgerConnection, order: Order, actor: Actor, kept: dict[str, Any], act: Callable[[], str]
) -> Done:
    """Do ``act`` and write it down, both or neither.

    ``act`` works on ``ledger`` and returns the result in words. ``kept``: the arguments to keep. Raises
    LedgerError when the run of ``actor`` has ordered something else before.
    """
    with planning_transaction(ledger, actor=actor.name):
        action_id = _begin(ledger, order, actor, kept)
        if action_id is None:
            return _done_before(ledger, order, actor, kept)
        result = act()
        ledger.execute(query("end_action"), {"action_id": action_id, "result": result})
    return Done(result)


def begin_action(ledger: LedgerConnection, order: Order, actor: Actor, kept: dict[str, Any]) -> int | Done:
    """Write down an act outside the ledger before it is done, so that it happens once; `end_action` follows.

    Gives the action's id, or what came of it when the run of ``actor`` has begun it before.
    """
    with ledger_transaction(ledger, actor=actor.name, lock_timeout=10, statement_timeout=30):
        action_id = _begin(ledger, order, actor, kept)
        return _done_before(ledger, order, actor, kept) if action_id is None else action_id


def end_action(ledger: LedgerConnection, action_id: int, result: str) -> None:
    """Write down what came of an act that `begin_action` has begun."""
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("end_action"), {"action_id": action_id, "result": result})


def list_actions(
    ledger: LedgerConnection, *, campaign_id: str | None = None, at_most: int = 50
) -> list[Audited]:
    """The newest actions, newest first: all, or a campaign's with halts, resumes and restores of all.

    Among them what was answered about cohorts of unusual size, and that nobody answered in time.
    """
    rows = ledger.execute(query("list_actions"), {"campaign": campaign_id, "at_most": at_most})
    return [Audited(*row) for row in rows]


def _begin(ledger: LedgerConnection, order: Order, actor: Actor, kept: dict[str, Any]) -> int | None:
    row = ledger.execute(
        query("begin_action"),
        {
            "actor": actor.name,
            "actor_kind": actor.kind,
            "action": str(order.action),
            "arguments": Jsonb(kept),
            "reason": order.reason.strip(),
            "run_key": actor.run_key,
        },
    ).fetchone()
    return None if row is None else int(row[0])


def _done_before(ledger: LedgerConnection, order: Order, actor: Actor, kept: dict[str, Any]) -> Done:
    row = ledger.execute(query("action_of_run"), {"run_key": actor.run_key}).fetchone()
    if row is None or row[:3] != (str(order.action), kept, order.reason.strip()):
        raise LedgerError(
            f"run {actor.run_key} has done another action before; nothing was changed. Trigger a new run"
        )
    return Done(row[3] or "it was begun, and what came of it is not known; nothing is repeated", before=True)
