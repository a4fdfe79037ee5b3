"""The database enforces the transition table; this page, its diagram and the enum say the same."""

import re
from datetime import timedelta
from itertools import product
from pathlib import Path

import psycopg
import pytest

from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, connect, let_time_pass

PAGE = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text()
NEEDED = {
    "planned": "held_reason = NULL",
    "held": "held_reason = 'stale'",
    "ready": "held_reason = NULL, ready_at = now()",
    "sending": "held_reason = NULL, gate_at = coalesce(gate_at, now()), answer_due = now(), ready_at = now(),"
    " attempt = CASE WHEN attempt IS NULL OR state = 'ready' THEN gen_random_uuid() ELSE attempt END",
    "sent": "held_reason = NULL, sent_at = now()",
    "rejected": "held_reason = NULL",
    "in_doubt": "held_reason = NULL, gate_at = coalesce(gate_at, now()), answer_due = now(),"
    " attempt = coalesce(attempt, gen_random_uuid()), ready_at = now()",
}


OTHER_COHORT = COHORT_DATE - timedelta(days=1)
AS_AN_ANSWER = "SET lifecycle.answer_was_read = 'yes'"
"""What record_outcomes says in its transaction."""


def pairs_in_table() -> set[tuple[str, str]]:
    return set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE))


def pairs_in_diagram() -> set[tuple[str, str]]:
    return set(re.findall(r"^    (\w+) --> (\w+)$", PAGE, re.MULTILINE))


def test_states_of_page_and_enum_are_the_same(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        rows = ledger.execute("SELECT unnest(enum_range(NULL::lifecycle.send_state))::text").fetchall()
    described = re.findall(r"^\| `(\w+)` \| [a-z]", PAGE.split("## Transitions")[0], re.MULTILINE)
    assert sorted(described) == sorted(state for (state,) in rows)


def test_diagram_and_table_are_the_same() -> None:
    assert pairs_in_diagram() == pairs_in_table()


def pairs_of_database(url: str) -> tuple[set[tuple[str, str]], set[str | None]]:
    """The moves between states that an empty ledger allows, and the constraints that refuse the others."""
    allowed, refused_by = set(), set()
    with connect(url) as ledger:
        add_cohort(ledger)
        ledger.execute(AS_AN_ANSWER)
        for old, new in product(NEEDED, NEEDED):
            if old == new:
                continue
            user = f"{old}-{new}"
            add_sends(ledger, [user], state=old)
            let_time_pass(ledger, timedelta(hours=1))  # what may still be answered is not sent again by hand
            attempt = ", sent_at = NULL" if old == "sent" else ""
            try:
                ledger.execute(
                    f"UPDATE lifecycle.sends SET state = '{new}', {NEEDED[new]}{attempt} WHERE user_id = %s",
                    (user,),
                )
            except psycopg.errors.IntegrityConstraintViolation as error:
                refused_by.add(error.diag.constraint_name)
            else:
                allowed.add((old, new))
    return allowed, refused_by


def test_database_allows_exactly_the_pairs_of_the_table(ledger_database: str) -> None:
    allowed, refused_by = pairs_of_database(ledger_database)
    assert allowed == pairs_in_table()
    assert refused_by == {"send_transition_is_legal"}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM lifecycle.sends",
        "TRUNCATE lifecycle.sends CASCADE",
        "DELETE FROM lifecycle.cohorts",
        "UPDATE lifecycle.sends SET user_id = 'other' WHERE user_id = 'sent'",
        "UPDATE lifecycle.sends SET sent_at = now() - interval '1 day' WHERE user_id = 'sent'",
        "UPDATE lifecycle.sends SET attempt = gen_random_uuid() WHERE user_id = 'sending'",
        "UPDATE lifecycle.sends SET state = 'ready' WHERE user_id = 'sending'",
        "UPDATE lifecycle.sends SET state = 'rejected' WHERE user_id = 'sending'",
        "UPDATE lifecycle.sends SET state = 'rejected' WHERE user_id = 'in_doubt'",
        "UPDATE lifecycle.sends SET state = 'in_doubt' WHERE user_id = 'sending'",
        "UPDATE lifecycle.sends SET state = 'sent', sent_at = now() WHERE user_id = 'ready'",
        "UPDATE lifecycle.sends SET state = 'sending', gate_at = now(), answer_due = now() WHERE user_id = 'ready'",
        "UPDATE lifecycle.sends SET cohort_date = '2026-05-02' WHERE user_id = 'planned'",
        "UPDATE lifecycle.sends SET cohort_date = '2026-04-30' WHERE user_id = 'sending'",
        "UPDATE lifecycle.sends SET cohort_date = '2026-04-30' WHERE user_id = 'in_doubt'",
        "UPDATE lifecycle.sends SET cohort_date = '2026-04-30' WHERE user_id = 'sent'",
        "UPDATE lifecycle.sends SET cohort_date = '2026-04-30' WHERE user_id = 'rejected'",
        "UPDATE lifecycle.cohorts SET not_after = not_after + interval '1 day'",
        "UPDATE lifecycle.cohorts SET window_end = window_end + interval '1 hour'",
        "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch) VALUES ('x', 'day4_follow_up', '2026-05-09', 0)",
        "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch) VALUES ('planned', 'day4_follow_up', '2026-05-01', 0)",
        "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch, state, ready_at) VALUES ('x', 'day4_follow_up', '2026-05-01', 0, 'ready', now())",
        "UPDATE lifecycle.sends SET held_reason = 'stale' WHERE user_id = 'planned'",
    ],
)  # fmt: skip
def test_database_refuses(ledger_database: str, statement: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=OTHER_COHORT)
        for state in ("planned", "ready", "sending", "in_doubt", "sent", "rejected"):
            add_sends(ledger, [state], state=state)
        before = ledger.execute("SELECT * FROM lifecycle.sends ORDER BY user_id").fetchall()
        with pytest.raises(psycopg.errors.IntegrityError):
            ledger.execute(statement.encode())
        assert ledger.execute("SELECT * FROM lifecycle.sends ORDER BY user_id").fetchall() == before


def test_history_has_a_row_for_holds_and_steps_back_and_none_for_the_straight_path(
    ledger_database: str,
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="planned")
        ledger.execute(AS_AN_ANSWER)
        for change in ("ready", "held", "ready", "sending", "ready", "sending", "in_doubt", "sent"):
            reason = NEEDED[change].replace(
                "attempt = coalesce(attempt, gen_random_uuid())", "attempt = attempt"
            )
            ledger.execute(f"UPDATE lifecycle.sends SET state = '{change}', {reason}".encode())
        rows = ledger.execute(
            "SELECT from_state, to_state FROM lifecycle.send_events ORDER BY event_id"
        ).fetchall()
    assert rows == [("ready", "held"), ("sending", "ready"), ("sending", "in_doubt"), ("in_doubt", "sent")]


@pytest.mark.parametrize("number", [0, 1])
def test_settling_by_hand_works_as_the_page_says(ledger_database: str, number: int) -> None:
    statements = re.findall(r"```sql\n(.*?)```", PAGE.split("## Settling a doubt")[1], re.DOTALL)[number]
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["42"], state="in_doubt")
        ledger.execute(statements.encode())
        early = ledger.execute("SELECT state::text FROM lifecycle.sends").fetchall()
        let_time_pass(ledger, timedelta(hours=1))
        ledger.execute(statements.encode())
        settled = ledger.execute("SELECT state::text FROM lifecycle.sends").fetchall()
        events = ledger.execute("SELECT from_state::text, actor FROM lifecycle.send_events").fetchall()
    assert (early, settled) == ([("in_doubt",)], [(("sent", "planned")[number],)])
    assert events == [("in_doubt", "ada")]
