"""Alerts as durable rows: recorded once with what they are about, delivered at least once to each callback.

Knows the tables of alerts and deliveries, and how an alert reads. Must not know what a callback is: it goes
by the callback's key (its position and name), so that a repeat after a crash carries the same alert id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row

NAMED_USERS = 20
"""An alert names at most this many users; the rest are a count."""


class Refusal(NamedTuple):
    """One user refused under one rule, as recorded in ``cap_refusals``."""

    refusal_id: int
    user_id: str
    rule: str
    cohort_date: date


@dataclass(frozen=True)
class Alert:
    """What the team is told. ``facts`` depends on ``kind``; `alert_text` puts it into words."""

    alert_id: str
    kind: str
    campaign: str | None
    cohort_date: date | None
    run: str
    created_at: datetime
    facts: dict[str, Any]


def record_limit_exceeded(
    ledger: LedgerConnection,
    campaign: Campaign,
    rules: Sequence[CapRule],
    refusals: Sequence[Refusal],
    *,
    cohort_date: date,
    callbacks: Sequence[str],
    run: str,
) -> str | None:
    """Record one alert for a run's new refusals, in the caller's transaction; None when there are none.

    The facts: per rule its limit, window and number of users; at most `NAMED_USERS` ids, and for these the
    sends that fill their windows; how many users in all.
    """
    if not refusals:
        return None
    users = sorted({refusal.user_id for refusal in refusals})
    named = users[:NAMED_USERS]
    longest = max((rule.window for rule in rules), default=timedelta())
    slots: dict[str, list[dict[str, Any]]] = {user: [] for user in named}
    for user_id, slot_campaign, state, at in ledger.execute(
        query("slots_of_users"), {"user_ids": named, "longest_window": longest}
    ):
        slots[user_id].append({"campaign": slot_campaign, "state": state, "at": at and at.isoformat()})
    broken = {refusal.rule for refusal in refusals}
    facts = {
        "users": len(users),
        "rules": [
            {
                "rule": rule.name,
                "max_sends": rule.max_sends,
                "window_seconds": int(rule.window.total_seconds()),
                "users": sum(refusal.rule == rule.name for refusal in refusals),
            }
            for rule in rules
            if rule.name in broken
        ],
        "on_cap": campaign.on_cap,
        "user_ids": named,
        "sends_in_window": slots,
        "cohort_dates": sorted({refusal.cohort_date.isoformat() for refusal in refusals}),
    }
    alert_id = create_alert(
        ledger, "limit_exceeded", campaign.id, cohort_date, run=run, facts=facts, callbacks=callbacks
    )
    ledger.execute(
        query("bind_refusals_to_alert"),
        {"alert_id": alert_id, "refusal_ids": [refusal.refusal_id for refusal in refusals]},
    )
    return alert_id


def create_alert(
    ledger: LedgerConnection,
    kind: str,
    campaign_id: str | None,
    cohort_date: date | None,
    *,
    run: str,
    facts: dict[str, Any],
    callbacks: Sequence[str],
) -> str:
    """Record an alert in the caller's transaction and return its id."""
    arguments = {
        "kind": kind,
        "campaign": campaign_id,
        "cohort_date": cohort_date,
        "run": run,
        "facts": Jsonb(facts),
        "callbacks": list(callbacks),
    }
    return str(one_row(ledger.execute(query("create_alert"), arguments))[0])


def undelivered_alerts(
    ledger: LedgerConnection, campaign_id: str | None, *, older_than: timedelta = timedelta()
) -> list[Alert]:
    """Alerts that a callback of theirs has not confirmed, oldest first; of one campaign, or of all for None.

    An alert recorded without callbacks has no recipient and is never due.
    """
    rows = ledger.execute(query("undelivered_alerts"), {"campaign": campaign_id, "older_than": older_than})
    return [Alert(str(row[0]), *row[1:]) for row in rows]


def callbacks_still_due(ledger: LedgerConnection, alert_id: str, callbacks: Sequence[str]) -> list[str]:
    """Which of ``callbacks`` have not confirmed this alert; the least often tried first.

    That order keeps a callback that hangs until its task is killed from starving the ones after it.
    """
    rows = ledger.execute(query("callbacks_still_due"), {"alert_id": alert_id, "callbacks": list(callbacks)})
    return [row[0] for row in rows]


def record_attempt(ledger: LedgerConnection, alert_id: str, callback: str) -> None:
    """Note, before a callback is called, that it is: a crash in it then still counts."""
    _write_delivery(ledger, "record_alert_attempt", alert_id, callback, None)


def record_delivery(ledger: LedgerConnection, alert_id: str, callback: str) -> None:
    """Note that the callback returned. A crash just before this repeats the alert, with the same id."""
    _write_delivery(ledger, "record_alert_delivery", alert_id, callback, None)


def record_failure(ledger: LedgerConnection, alert_id: str, callback: str, error: str) -> None:
    """Note why a callback failed; ``error`` without addresses or secrets (the type and place will do)."""
    _write_delivery(ledger, "record_alert_failure", alert_id, callback, error)


def mark_escalated(ledger: LedgerConnection, alert_id: str) -> None:
    """The maintenance run delivered this alert through its own callbacks; it is due no longer."""
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("mark_alert_escalated"), {"alert_id": alert_id})


def _write_delivery(
    ledger: LedgerConnection, name: str, alert_id: str, callback: str, error: str | None
) -> None:
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query(name), {"alert_id": alert_id, "callback": callback, "error": error})
