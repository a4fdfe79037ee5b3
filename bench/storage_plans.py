"""Which queries of the product would read every send ever made, by PostgreSQL's own plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.storage_layouts import CAP, Plan, text
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row, planning_transaction

QUERIES = (
    # planning
    *("count_arrivals", "move_arrivals", "plan_arrivals", "refresh_arrivals", "hold_departures"),
    *("create_batches",),
    # judging
    *("judge_again", "hold_unsendable", "hold_capped", "reserve_slots", "slots_of_users", "count_states"),
    # sending
    *("ready_batches", "due_users", "count_due", "pass_gate", "record_outcomes", "lock_sends"),
    # reconciling and upkeep
    *("states_by_cohort", "open_rows", "answers_awaited", "users_in_doubt", "sweep_cohorts", "hold_stale"),
    *("close_cohorts", "drop_send_detail"),
)
"""What touches lifecycle.sends, besides judge_cap."""


def whole_table_scans(ledger: LedgerConnection, plan: Plan) -> list[str]:
    """Names of queries whose plan, for this cohort and its users, has a sequential scan of sends."""
    arguments = {
        "batches": [0], "user_ids": [""], "attempts": [None], "address_hashes": [None], "most": 20,
        "smtp_conn_id": "lifecycle_smtp", "template_version": "", "code_version": "",
        "probe": False, "answer_seconds": 670,
        "verdicts": ["sent"], "held_reasons": [None], "queue_ids": [None], "details": [None],
        "longest_window": max(CAP["windows"]), "keep": "400 days", "known": 1, "first_time": False,
        **plan.arguments,
    }  # fmt: skip
    with planning_transaction(ledger, roll_back=True):
        ledger.execute(query("create_arrivals"))
        ledger.execute(text("fill_arrivals"), plan.users._asdict())
        ledger.execute(query("analyze_arrivals"))
        found = ["judge_cap"] if _scans_sends(ledger, "judge_cap", arguments) else []
        ledger.execute(text("create_nobody_refused"))  # the table that judge_cap would have made
        return found + [name for name in QUERIES if _scans_sends(ledger, name, arguments)]


def _scans_sends(ledger: LedgerConnection, name: str, arguments: dict[str, Any]) -> bool:
    (plan,) = one_row(ledger.execute(b"EXPLAIN (FORMAT JSON) " + query(name), arguments))
    return any(
        node["Node Type"] == "Seq Scan" and node["Relation Name"] == "sends"
        for node in _nodes(plan[0]["Plan"])
    )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", []):
        yield from _nodes(below)
