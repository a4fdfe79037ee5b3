"""Orders as two people give them: one in Airflow, one by a command; and what the audit says of them."""

from __future__ import annotations

from lifecycle_emails.ledger.actions import Actor, Done, list_actions
from lifecycle_emails.ledger.approving import check_volume
from lifecycle_emails.operation import carry_out
from lifecycle_emails.order import Action, Order
from tests.integration.ledger.rows import COHORT_DATE, make_campaign

CAMPAIGN = "day4_follow_up"
ADA = Actor("ada", "airflow", "lifecycle_operations manual__1")
BOB = Actor("postgres (command, bob)", "command")


def ordered(action: Action, *user_ids: str, **fields) -> Order:
    return Order(action, "mended it", CAMPAIGN, user_ids=user_ids, **fields)


def give(ledger, order: Order, actor: Actor = BOB) -> Done:
    return carry_out(ledger, order, actor, [CAMPAIGN])


def audit(ledger) -> list[tuple[str, str, str | None]]:
    return [(done.actor, done.action, done.result) for done in list_actions(ledger)]


def cohort_held_back(ledger) -> Order:
    """A cohort that awaits approval for its size; the order that would release it."""
    ledger.execute("UPDATE lifecycle.cohorts SET audience_size = 500, audience_read_at = now()")
    campaign = make_campaign(volume={"factor": 3, "floor": 2, "without_history": 10})
    check_volume(ledger, campaign, [COHORT_DATE], run="")
    return ordered(Action.RELEASE_COHORT, cohort_from=COHORT_DATE, cohort_to=COHORT_DATE)
