"""Carries out a person's order on the ledger: checks it, does it, and says in words what came of it.

The one way in for commands and for Airflow. Knows the ledger's functions and no SQL, and must not know who
asked: the caller names the actor. Sending a test needs a mail server: `delivery.test_mail` does that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.actions import Actor, Done, carry_out_once
from lifecycle_emails.ledger.approving import release_cohort
from lifecycle_emails.ledger.extending import Extension, extend, look_at_extension
from lifecycle_emails.ledger.orders import (
    halt,
    halt_in_force,
    halts_that_hold,
    hash_of_address,
    known_campaigns,
    resume,
    suppress,
    unseen_users,
    unsuppress,
)
from lifecycle_emails.ledger.releasing import release
from lifecycle_emails.ledger.session import LedgerConnection
from lifecycle_emails.ledger.settling import SettleAs, Settled, Which, named, settle
from lifecycle_emails.ledger.steps import ledger_time
from lifecycle_emails.order import SETTLING, Action, Order

EARLIEST_ZONE = timedelta(hours=14)
"""A day begins nowhere on earth earlier than so long before it does in UTC."""


def carry_out(ledger: LedgerConnection, order: Order, actor: Actor, campaigns: Collection[str]) -> Done:
    """Check the order, do it, and write both into the audit. ``campaigns``: ids that have a file.

    Raises LedgerError, with everything unchanged, where the order makes no sense or the ledger forbids it.
    """
    check_order(ledger, order, campaigns)
    kept = kept_arguments(ledger, order)
    return carry_out_once(ledger, order, actor, kept, lambda: _act(ledger, order, actor.name))


def check_order(ledger: LedgerConnection, order: Order, campaigns: Collection[str]) -> None:
    """Raise LedgerError when the order makes no sense. ``campaigns``: ids that have a file."""
    order.check({*known_campaigns(ledger), *campaigns})
    if order.cohort_to is not None and order.cohort_to > (ledger_time(ledger) + EARLIEST_ZONE).date():
        raise LedgerError(f"{order.action}: {order.cohort_to} is in the future. Nothing was changed")


def kept_arguments(ledger: LedgerConnection, order: Order) -> dict[str, Any]:
    """What the audit keeps of an order: everything, and of an address its keyed hash."""
    kept = order.arguments()
    if order.address is not None:
        kept["address_hash"] = hash_of_address(ledger, order.address).hex()
    return kept


def told_extension(extension: Extension) -> str:
    """What an extension means, for the person who approves it."""
    told = (
        f"{_counted(extension.cohorts, 'cohort')} of {extension.campaign} from {extension.cohort_from} to "
        f"{extension.cohort_to}, by {_counted(extension.days, 'day')}, up to "
        f"{extension.latest:%Y-%m-%d %H:%M %Z}: {_counted(extension.users, 'user')} not mailed yet "
        f"({extension.stale} of them stale now)"
    )
    if not extension.earlier:
        return told
    return f"{told}; extended {_counted(extension.earlier, 'time')} before, last by {extension.last}"


def told_halts_that_hold(ledger: LedgerConnection, campaign: str | None) -> str:
    """What still stops this campaign, or anything for None, as a sentence to append, or an empty one."""
    still = [f"{one or 'all campaigns'}, halted {who}" for one, who in halts_that_hold(ledger, campaign)]
    return f". Another halt still holds: {'; '.join(still)}" if still else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _act(ledger: LedgerConnection, order: Order, actor: str) -> str:
    if order.action in {Action.HALT, Action.RESUME}:
        return _halt_or_resume(ledger, order, actor)
    if order.action in {Action.SUPPRESS, Action.UNSUPPRESS}:
        return _suppress_or_unsuppress(ledger, order, actor)
    if order.campaign is None:
        raise LedgerError(f"{order.action}: name the campaign. Nothing was changed")
    if order.action in SETTLING:
        return _settle(ledger, order, order.campaign, actor)
    if order.action is Action.RELEASE:
        released = release(ledger, order.campaign, order.user_ids, reason=order.reason, actor=actor)
        lines = [f"{released.users} released: they are judged again by the next run"]
        return "\n".join([*lines, *_too_late(order.campaign, released.too_late)])
    if order.action is Action.RELEASE_COHORT:
        return _release_cohort(ledger, order, order.campaign, actor)
    if order.action is Action.EXTEND:
        return _extend(ledger, order, order.campaign, actor)
    raise LedgerError(f"{order.action} is not done on the ledger alone; nothing was changed")


def _halt_or_resume(ledger: LedgerConnection, order: Order, actor: str) -> str:
    terms: dict[str, Any] = {"campaign_id": order.campaign, "reason": order.reason, "actor": actor}
    if order.action is Action.RESUME:
        done, still = resume(ledger, **terms), told_halts_that_hold(ledger, order.campaign)
        if not done:
            return f"there was no such halt; nothing changed{still}"
        return f"{'that halt is lifted' if order.campaign and still else 'sending goes on'}{still}"
    if halt(ledger, **terms):
        return "sending is halted"
    return f"was halted before, {halt_in_force(ledger, order.campaign)}; nothing changed"


def _suppress_or_unsuppress(ledger: LedgerConnection, order: Order, actor: str) -> str:
    lifting = order.action is Action.UNSUPPRESS
    change = unsuppress if lifting else suppress
    terms: dict[str, Any] = {"campaign_id": order.campaign, "reason": order.reason, "actor": actor}
    if order.address is not None:
        changed, asked = int(change(ledger, address=order.address, **terms)), 1
    else:
        changed = sum(change(ledger, user_id=user_id, **terms) for user_id in sorted(order.user_ids))
        asked = len(order.user_ids)
    if not changed:
        return (
            "there was no such suppression; nothing changed"
            if lifting
            else "was suppressed before; nothing changed"
        )
    told = "suppression lifted" if lifting else "suppressed"
    if asked > 1:
        told = f"{told}: {changed} of {asked}"
    if changed < asked:
        told = f"{told}; the others were {'not suppressed' if lifting else 'so before'}"
    unseen = [] if lifting else unseen_users(ledger, order.user_ids)
    return f"{told}. No run has seen {named(unseen)}" if unseen else told


def _settle(ledger: LedgerConnection, order: Order, campaign: str, actor: str) -> str:
    which = Which(list(order.user_ids) or None, order.cohort_from, order.cohort_to)
    verdict = SettleAs.SENT if order.action is Action.SETTLE_AS_SENT else SettleAs.SEND_AGAIN
    settled = settle(ledger, campaign, which, verdict, reason=order.reason, actor=actor)
    if verdict is SettleAs.SENT:
        return f"{settled.users} settled as sent"
    return _told_settled(campaign, settled)


def _told_settled(campaign: str, settled: Settled) -> str:
    first, last = (at.isoformat(timespec="seconds") for at in (settled.first_gate_at, settled.last_gate_at))
    done = f"{settled.users} settled: they are judged again by the next run"
    warning = (
        "The ledger cannot know whether the process that wrote their dots is dead. Make sure that no task "
        f"that was sending between {first} and {last} is frozen, or cut off from the ledger, anywhere before "
        "that run begins."
    )
    return "\n".join([done, warning, *_too_late(campaign, settled.too_late)])


def _too_late(campaign: str, dates: tuple[date, ...]) -> list[str]:
    if not dates:
        return []
    first, last = dates[0], dates[-1]
    advice = (
        f"Cohorts {first} to {last} are past their deadline, and are held as stale. To send, run "
        f"lifecycle extend {campaign} --cohort-from {first} --cohort-to {last} --days N --reason ..."
    )
    return [advice]


def _release_cohort(ledger: LedgerConnection, order: Order, campaign: str, actor: str) -> str:
    if order.cohort_from is None:
        raise LedgerError("release_cohort: give the cohort's date. Nothing was changed")
    too_late = release_cohort(ledger, campaign, order.cohort_from, actor, order.reason)
    released = f"cohort {order.cohort_from} released: its users are judged by the next run"
    return "\n".join([released, *_too_late(campaign, (order.cohort_from,) if too_late else ())])


def _extend(ledger: LedgerConnection, order: Order, campaign: str, actor: str) -> str:
    if order.cohort_from is None or order.cohort_to is None or order.days is None:
        raise LedgerError("extend: give cohort dates and days. Nothing was changed")
    extension = look_at_extension(ledger, campaign, order.cohort_from, order.cohort_to, order.days)
    if order.approved_users is None or order.earlier_extensions != extension.earlier:
        numbers = f"approved_users = {extension.users}"
        if order.earlier_extensions or extension.earlier:
            numbers = f"{numbers} and earlier_extensions = {extension.earlier}"
        raise LedgerError(
            f"{told_extension(extension)}; nothing was changed. To approve it, order it again with {numbers}"
        )
    approved = replace(extension, users=order.approved_users)
    in_doubt = extend(ledger, approved, reason=order.reason, actor=actor)
    extended = f"extended: {told_extension(extension)}"
    if not in_doubt:
        return extended
    return (
        f"{extended}\n{in_doubt} of them are in doubt now: the ledger went back in time, and they may have "
        f"been mailed by an extension that it has forgotten. To settle them: lifecycle settle {campaign}"
    )
