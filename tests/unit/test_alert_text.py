"""Alerts in words say who, which rule, and what to do, and carry their id; data in them is never markup."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from lifecycle_emails.alert_text import alert_text
from lifecycle_emails.ledger.alerts import Alert

WHEN = datetime(2026, 5, 5, 6, 1, tzinfo=UTC)
LIMIT_FACTS: dict[str, Any] = {
    "users": 23,
    "rules": [{"rule": "one_per_20_hours", "max_sends": 1, "window_seconds": 72_000, "users": 23}],
    "on_cap": "defer",
    "user_ids": [str(number) for number in range(20)],
    "sends_in_window": {"0": [{"campaign": "day4_setup_help", "state": "sent", "at": "2026-05-05T05:59:00+00:00"}]},
    "cohort_dates": ["2026-05-01"],
}  # fmt: skip


def alert(kind: str, facts: dict[str, Any]) -> Alert:
    return Alert("0d3e", kind, "day4_follow_up", date(2026, 5, 1), "scheduled__2026-05-05", WHEN, facts)


def test_limit_exceeded_says_who_which_rule_and_what_fills_the_window() -> None:
    words = alert_text(
        alert("limit_exceeded", LIMIT_FACTS), where="https://airflow.example.com/dags/day4_follow_up"
    )
    assert words.subject == "Frequency cap reached: 23 users in day4_follow_up"
    for body in (words.text, words.html):
        for part in (
            "one_per_20_hours: at most 1 in 20 hours",
            "2026-05-01",
            "and 3 more",
            "user 0: day4_setup_help sent at 2026-05-05T05:59",
            "https://airflow.example.com/dags/day4_follow_up",
            "scheduled__2026-05-05",
            "Alert id: 0d3e",
        ):
            assert part in body


def test_link_to_the_run_is_short_in_html_and_whole_in_text() -> None:
    where = "https://airflow.example.com/dags/d/runs/scheduled__2026-05-05T06%3A00%3A00%2B00%3A00"
    words = alert_text(alert("limit_exceeded", LIMIT_FACTS), where=where)
    assert f'<a href="{where}">this run in Airflow</a>' in words.html
    assert f"\nWhere to look: {where}\n" in words.text
    assert "Where to look" not in alert_text(alert("limit_exceeded", LIMIT_FACTS)).html


@pytest.mark.parametrize(
    ("kind", "facts", "part"),
    [
        ("in_doubt", {"users": 1, "user_ids": ["7"], "cohort_dates": ["2026-05-01"]}, "1 user may or may not"),
        ("missing_cohorts", {"cohort_dates": ["2026-05-02", "2026-05-03"]}, "2026-05-02, 2026-05-03"),
        ("expired", {"users": 3, "cohort_dates": {"2026-05-01": 1, "2026-05-02": 2}}, "2026-05-01 (1), 2026-05-02 (2)"),
        ("provider_stopped", {"smtp_conn_id": "lifecycle_smtp", "reason": "20 mails in a row were refused"}, "20 mails in a row"),
        ("witness_forgot", {"newest_mark": "2026-05-05T06:00:00+00:00"}, "the newest at 2026-05-05T06:00:00+00:00"),
    ],
)  # fmt: skip
def test_every_other_kind_has_words(kind: str, facts: dict[str, Any], part: str) -> None:
    words = alert_text(alert(kind, facts))
    assert part in words.text
    assert part in words.html
    assert "\n" not in words.subject


def test_markup_in_a_user_id_is_shown_and_never_interpreted() -> None:
    facts = {"users": 1, "user_ids": ["<script>{{ 7*7 }}"], "cohort_dates": ["2026-05-01"]}
    words = alert_text(alert("in_doubt", facts))
    assert "<script>{{ 7*7 }}" in words.text
    assert "&lt;script&gt;{{ 7*7 }}" in words.html
    assert "<script>" not in words.html
