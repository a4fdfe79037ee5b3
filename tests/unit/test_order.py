"""An order that makes no sense is refused with everything that is wrong with it, before any database is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.order import DESCRIPTIONS, MOST_USERS, Action, Order

KNOWN = {"day4_follow_up"}
EXTEND = Order(
    Action.EXTEND, "SMTP was down", "day4_follow_up",
    cohort_from=date(2026, 5, 1), cohort_to=date(2026, 5, 3), days=3,
)  # fmt: skip
SETTLE = Order(Action.SETTLE_AS_SENT, "asked", "day4_follow_up", user_ids=("42",))
SUPPRESS = Order(Action.SUPPRESS, "asked", user_ids=("42",))


def order(action: Action, **fields) -> Order:
    return Order(action, **{"reason": "why", **fields})


@pytest.mark.parametrize(
    "sensible",
    [
        EXTEND,
        SETTLE,
        SUPPRESS,
        order(Action.HALT),
        order(Action.RESUME, campaign="gone"),
        order(Action.SETTLE_TO_SEND_AGAIN, campaign="day4_follow_up", everybody=True),
        order(Action.RELEASE, campaign="day4_follow_up", user_ids=("1", "2")),
        order(Action.SUPPRESS, address="ada@example.com"),
        order(Action.SEND_TEST, campaign="day4_follow_up", address="ada@example.com"),
        order(Action.SEND_TEST, campaign="day4_follow_up", recipient="lifecycle_test_recipient"),
    ],
)
def test_order_that_makes_sense_passes(sensible: Order) -> None:
    sensible.check(KNOWN)


@pytest.mark.parametrize(
    ("senseless", "said"),
    [
        (order(Action.HALT, reason=" "), "give a reason"),
        (order(Action.HALT, reason="ask ada@example.com"), "leave addresses out"),
        (order(Action.HALT, campaign="day4_folow_up"), "there is no campaign day4_folow_up"),
        (order(Action.HALT, user_ids=("42",)), "it takes no users"),
        (order(Action.HALT, everybody=True), "only doubts are settled for everybody"),
        (order(Action.RELEASE, campaign="day4_follow_up"), "name the users"),
        (order(Action.RELEASE, user_ids=("42",)), "name the campaign"),
        (replace(SUPPRESS, user_ids=("ada@example.com",)), "never an address"),
        (replace(SUPPRESS, user_ids=("42", "42")), "a user is named twice"),
        (replace(SUPPRESS, user_ids=("42", " 42")), "a user is named twice"),
        (replace(SUPPRESS, user_ids=("",)), "a user id is blank"),
        (replace(SUPPRESS, user_ids=("42", "  ")), "a user id is blank"),
        (replace(SUPPRESS, user_ids=tuple(map(str, range(MOST_USERS + 1)))), "order it in parts"),
        (replace(SUPPRESS, user_ids=()), "name either users or an address"),
        (replace(SUPPRESS, address="ada@example.com"), "name either users or an address"),
        (replace(SETTLE, everybody=True), "name one of"),
        (replace(SETTLE, user_ids=()), "name one of"),
        (replace(SETTLE, address="ada@example.com"), "it takes no address"),
        (replace(SETTLE, days=3), "it takes no days"),
        (replace(SETTLE, approved_users=3), "only an extension"),
        (order(Action.RELEASE_COHORT, campaign="day4_follow_up"), "give the first and the last cohort date"),
        (replace(EXTEND, action=Action.RELEASE_COHORT, days=None), "one cohort at a time"),
        (replace(EXTEND, days=None), "say by how many days"),
        (replace(EXTEND, cohort_to=None), "first and the last cohort date together"),
        (replace(EXTEND, cohort_to=date(2026, 4, 30)), "is later than the last"),
        (
            replace(EXTEND, cohort_to=date(2027, 5, 30)),
            "is more than 366 days, so a year may be wrong. Nothing",
        ),
        (replace(EXTEND, cohort_from=None, cohort_to=None), "give the first and the last cohort date"),
        (order(Action.SEND_TEST, campaign="day4_follow_up", user_ids=("1", "2")), "name at most one user"),
        (order(Action.SEND_TEST, campaign="day4_follow_up"), "say to whom it goes"),
        (order(Action.HALT, recipient="lifecycle_test_recipient"), "it goes to nobody"),
    ],
)
def test_senseless_order_is_refused(senseless: Order, said: str) -> None:
    with pytest.raises(LedgerError, match=r"Nothing was changed$") as refused:
        senseless.check(KNOWN)
    assert said in str(refused.value)
    assert "@example" not in str(refused.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(LedgerError) as refused:
        order(Action.EXTEND, reason="", campaign="gone").check(KNOWN)
    for said in (
        "give a reason",
        "give the first and the last cohort date",
        "by how many days",
        "no campaign",
    ):
        assert said in str(refused.value)


def test_address_is_neither_kept_nor_shown() -> None:
    told = order(Action.SUPPRESS, address="ada@example.com")
    assert "ada" not in f"{told!r} {told.arguments()}"


def test_user_ids_are_taken_without_the_space_around_them() -> None:
    assert order(Action.SUPPRESS, user_ids=(" 42", "43 ")).user_ids == ("42", "43")


def test_every_action_explains_itself() -> None:
    assert set(DESCRIPTIONS) == set(Action)
