"""What a person may ask of the ledger, as one value, and whether it makes sense.

Commands and the form of the operators' DAG share it. Knows no database, no Airflow and no terminal. An order
holds no address but ``address``, which is never written down.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from lifecycle_emails.errors import LedgerError

LONGEST_RANGE_DAYS = 366
LONGEST_EXTENSION_DAYS = 366
MOST_USERS = 1000
"""So many users one order names at most; more are a matter of a filter or of a suppression."""


class Action(StrEnum):
    """What can be ordered. The audit, the form and the commands use these words."""

    HALT = "halt"
    RESUME = "resume"
    SETTLE_AS_SENT = "settle_as_sent"
    SETTLE_TO_SEND_AGAIN = "settle_to_send_again"
    RELEASE = "release"
    RELEASE_COHORT = "release_cohort"
    EXTEND = "extend"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    SEND_TEST = "send_test"


DESCRIPTIONS = {
    Action.HALT: "halt: stop sending within seconds, in one campaign or in all",
    Action.RESUME: "resume: lift that halt",
    Action.SETTLE_AS_SENT: "settle as sent: mails in doubt that did arrive",
    Action.SETTLE_TO_SEND_AGAIN: "settle to send again: mails in doubt that did not arrive",
    Action.RELEASE: "release: judge rejected or capped users again",
    Action.RELEASE_COHORT: "release a cohort: let one go out that was refused for its size",
    Action.EXTEND: "extend: lengthen the deadline of a range of cohorts",
    Action.SUPPRESS: "suppress: never mail these users",
    Action.UNSUPPRESS: "unsuppress: lift that suppression",
    Action.SEND_TEST: "send a test: one user's mail of a campaign, to you, marked [test]",
}
"""What the form shows for each action."""

SETTLING = frozenset({Action.SETTLE_AS_SENT, Action.SETTLE_TO_SEND_AGAIN})
_NEEDS_CAMPAIGN = SETTLING | {Action.RELEASE, Action.RELEASE_COHORT, Action.EXTEND, Action.SEND_TEST}
_TAKES_USERS = SETTLING | {Action.RELEASE, Action.SUPPRESS, Action.UNSUPPRESS, Action.SEND_TEST}
_TAKES_ADDRESS = frozenset({Action.SUPPRESS, Action.UNSUPPRESS, Action.SEND_TEST})
_TAKES_RANGE = SETTLING | {Action.EXTEND, Action.RELEASE_COHORT}


@dataclass(frozen=True)
class Order:
    """One action and what it is about.

    ``campaign``: its id; None means all campaigns, where the action can mean that. ``user_ids``: without the
    space around them. ``cohort_from`` and ``cohort_to``: both included. ``everybody``: all doubts of the
    campaign. ``recipient``: the Airflow connection that holds the address to which a test goes.
    ``approved_users``: the total that an extension may concern, as the person has seen it, and
    ``earlier_extensions``: of how many extensions of these cohorts the person knows.
    """

    action: Action
    reason: str
    campaign: str | None = None
    user_ids: tuple[str, ...] = ()
    address: str | None = field(default=None, repr=False)
    recipient: str | None = None
    cohort_from: date | None = None
    cohort_to: date | None = None
    everybody: bool = False
    days: int | None = None
    approved_users: int | None = None
    earlier_extensions: int = 0

    def __post_init__(self) -> None:
        """Take user ids as they were meant: in a terminal or a form a space slips in unseen."""
        object.__setattr__(self, "user_ids", tuple(user_id.strip() for user_id in self.user_ids))

    def arguments(self) -> dict[str, Any]:
        """What the audit keeps beside the reason: all that was said, but for the address."""
        said: dict[str, Any] = {
            "campaign": self.campaign,
            "user_ids": list(self.user_ids),
            "cohort_from": self.cohort_from and self.cohort_from.isoformat(),
            "cohort_to": self.cohort_to and self.cohort_to.isoformat(),
            "everybody": self.everybody,
            "days": self.days,
            "recipient": self.recipient,
            "approved_users": self.approved_users,
            "earlier_extensions": self.earlier_extensions,
        }
        return {name: value for name, value in said.items() if value not in (None, [], False)}  # nor 0

    def check(self, known_campaigns: Collection[str]) -> None:
        """Raise LedgerError that names everything at once that makes no sense."""
        mistakes = [mistake for rule in _RULES if (mistake := rule(self))]
        lifting = self.action in {Action.RESUME, Action.UNSUPPRESS}  # of a campaign that is gone, too
        if not lifting and self.campaign is not None and self.campaign not in known_campaigns:
            known = ", ".join(sorted(known_campaigns)) or "none"
            mistakes.append(f"there is no campaign {self.campaign} (known: {known})")
        if mistakes:
            raise LedgerError(f"{self.action}: {'; '.join(mistakes)}. Nothing was changed")


def mistake_in_reason(reason: str) -> str | None:
    """What is wrong with the reason of an act that is kept for good, in words; None for nothing."""
    if not reason.strip():
        return "give a reason"
    return "the reason holds an @; it is kept for good, so leave addresses out" if "@" in reason else None


def _reason(order: Order) -> str | None:
    return mistake_in_reason(order.reason)


def _campaign(order: Order) -> str | None:
    return "name the campaign" if order.action in _NEEDS_CAMPAIGN and not order.campaign else None


def _users(order: Order) -> str | None:
    if order.user_ids and order.action not in _TAKES_USERS:
        return "it takes no users"
    if not all(order.user_ids):
        return "a user id is blank"
    if any("@" in user_id for user_id in order.user_ids):
        return "a user id holds an @; write the user's id in the source, never an address"
    if len(order.user_ids) > MOST_USERS:
        return f"{len(order.user_ids)} users are more than {MOST_USERS}; order it in parts"
    if len(set(order.user_ids)) < len(order.user_ids):
        return "a user is named twice"
    return None


def _how_many(order: Order) -> str | None:
    if order.action is Action.SEND_TEST and len(order.user_ids) > 1:
        return "name at most one user: whose mail is to be shown"
    if order.action is Action.RELEASE and not order.user_ids:
        return "name the users"
    return None


def _whom(order: Order) -> str | None:
    if order.address is not None and order.action not in _TAKES_ADDRESS:
        return "it takes no address"
    if order.action is Action.SEND_TEST and (order.address is None) == (order.recipient is None):
        return "say to whom it goes"
    if order.action is not Action.SEND_TEST and order.recipient is not None:
        return "it goes to nobody"
    if order.action in {Action.SUPPRESS, Action.UNSUPPRESS} and bool(order.user_ids) == (
        order.address is not None
    ):
        return "name either users or an address"
    return None


def _range(order: Order) -> str | None:
    first, last = order.cohort_from, order.cohort_to
    if first is None and last is None:
        needed = order.action in {Action.EXTEND, Action.RELEASE_COHORT}
        return "give the first and the last cohort date" if needed else None
    if order.action not in _TAKES_RANGE:
        return "it takes no cohort dates"
    if first is None or last is None:
        return "give the first and the last cohort date together"
    if first > last:
        return f"the first cohort date {first} is later than the last, {last}"
    if (last - first).days > LONGEST_RANGE_DAYS:
        return f"{first} to {last} is more than {LONGEST_RANGE_DAYS} days, so a year may be wrong"
    return None


def _one_cohort(order: Order) -> str | None:
    if order.action is Action.RELEASE_COHORT and order.cohort_from != order.cohort_to:
        return "one cohort at a time: give its date as the first and as the last"
    return None


def _doubts(order: Order) -> str | None:
    if order.action in SETTLING:
        named = (bool(order.user_ids), order.cohort_from is not None, order.everybody)
        return None if sum(named) == 1 else "name one of: users, a range of cohort dates, everybody in doubt"
    return "only doubts are settled for everybody" if order.everybody else None


def _days(order: Order) -> str | None:
    if order.action is Action.EXTEND:
        return None if order.days and order.days > 0 else "say by how many days"
    return "it takes no days" if order.days is not None else None


def _approval(order: Order) -> str | None:
    extra = (
        order.approved_users is not None or order.earlier_extensions
    ) and order.action is not Action.EXTEND
    return "only an extension takes a number of approved users or of earlier extensions" if extra else None


_RULES: tuple[Callable[[Order], str | None], ...] = (
    _reason, _campaign, _users, _how_many, _whom, _range, _one_cohort, _doubts, _days, _approval,
)  # fmt: skip
