"""Mutants of the throttle: how grants are given, how connections are leased, and when a turn begins."""

from __future__ import annotations

from reliability.mutants.mutant import Mutant

_LEDGER_TESTS = "tests/integration/ledger/test_throttle.py::"
_SENDER_TESTS = "tests/integration/delivery/test_throttled_sender.py::"
_GRANTS = "sql/queries/take_grants.sql"


def _mutant(name: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(name, "throttle", file, old, new, (test,))


THROTTLE = (
    _mutant(
        "each task's grants begin at once",
        _GRANTS,
        "SELECT CASE WHEN paced.rate IS NULL THEN timed.moment",
        "SELECT CASE WHEN true THEN timed.moment",
        _LEDGER_TESTS + "test_moments_granted_one_by_one_are_not_nearer_than_the_rate_allows",
    ),
    _mutant(
        "grants of one group all at once",
        _GRANTS,
        "coalesce(1 / g.rate, 0)",
        "coalesce(0 / g.rate, 0)",
        _LEDGER_TESTS + "test_grants_begin_now_and_follow_each_other_at_the_rate",
    ),
    _mutant(
        "one more than the daily maximum",
        _GRANTS,
        "lifecycle.daily_maximum(timed.throttle, today.day) - counted.granted",
        "lifecycle.daily_maximum(timed.throttle, today.day) + 1 - counted.granted",
        _LEDGER_TESTS + "test_grants_stop_at_midnight_and_the_next_day_is_counted_anew",
    ),
    _mutant(
        "a day's grants are not counted",
        _GRANTS,
        "ELSE g.granted + g.grants END",
        "ELSE g.granted END",
        _LEDGER_TESTS + "test_day_is_that_of_the_connections_own_time_zone_and_its_end_divides_a_group",
    ),
    _mutant(
        "leased connections are not counted",
        "sql/queries/lease_connections.sql",
        "coalesce(sum(c.connections), 0)",
        "0 * coalesce(sum(c.connections), 0)",
        _LEDGER_TESTS + "test_connections_of_a_killed_task_come_free_and_its_lease_is_not_renewed",
    ),
    _mutant(
        "a lease that has ended is renewed",
        "sql/queries/renew_connections.sql",
        " AND leased_until > now()",
        "",
        _LEDGER_TESTS + "test_connections_of_a_killed_task_come_free_and_its_lease_is_not_renewed",
    ),
    _mutant(
        "a grant can be taken back",
        "sql/migrations/0009_throttle.sql",
        "NEW.last_grant_at < lifecycle.last_grant(OLD, now())",
        "NEW.last_grant_at < '-infinity'",
        _LEDGER_TESTS + "test_what_was_granted_survives_new_terms_and_is_never_taken_back",
    ),
    _mutant(
        "turns begin before their moment",
        "delivery/pacing.py",
        "while self._given and self._given[0][0] <= now:",
        "while self._given:",
        _SENDER_TESTS + "test_mails_arrive_at_most_at_the_rate",
    ),
)
