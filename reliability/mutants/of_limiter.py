"""Mutants of the frequency cap's SQL."""

from __future__ import annotations

from reliability.mutants.mutant import Mutant

_TESTS = "tests/integration/ledger/test_judging.py::"
_RACE = "test_sixteen_campaigns_at_once_reserve_exactly_what_the_cap_allows[read committed]"


def _mutant(name: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(name, "limiter", file, old, new, (_TESTS + test,))


LIMITER = (
    _mutant(
        "no cap lock",
        "sql/queries/lock_frequency_cap.sql",
        "SELECT pg_advisory_xact_lock(hashtextextended('lifecycle frequency cap', 0))",
        "SELECT hashtextextended('lifecycle frequency cap', 0)",
        _RACE,
    ),
    _mutant(
        "cap lock of one campaign after another",
        "sql/queries/lock_frequency_cap.sql",
        "SELECT pg_advisory_xact_lock(",
        "SELECT pg_advisory_xact_lock_shared(",
        _RACE,
    ),
    _mutant(
        "one more than the cap",
        "sql/queries/judge_cap.sql",
        "HAVING count(*) >= r.max_sends",
        "HAVING count(*) > r.max_sends",
        "test_limit_counts_slots_over_all_campaigns_and_says_which_rule",
    ),
    _mutant(
        "slots of the own campaign only",
        "sql/queries/judge_cap.sql",
        "WHERE slot.user_id = ANY (c.user_ids)",
        "WHERE slot.user_id = ANY (c.user_ids) AND slot.campaign = %(campaign)s",
        "test_limit_counts_slots_over_all_campaigns_and_says_which_rule",
    ),
    _mutant(
        "the window never rolls on",
        "sql/queries/judge_cap.sql",
        "ON slot.slot_at > now() - r.window_length",
        "ON slot.slot_at > now() - r.window_length * 1000",
        "test_deferred_user_is_ready_once_the_window_has_rolled_on_and_a_dropped_one_never",
    ),
    _mutant(
        "the refused get a slot too",
        "sql/queries/reserve_slots.sql",
        "\n  AND NOT EXISTS (SELECT FROM refused AS r WHERE r.user_id = j.user_id OFFSET 0)",
        "",
        "test_sixteen_campaigns_at_once_reserve_exactly_what_the_cap_allows[repeatable read]",
    ),
    _mutant(
        "a campaign that drops defers",
        "sql/queries/reserve_slots.sql",
        "(j.held_reason = 'capped' AND %(judge_capped)s)",
        "(j.held_reason = 'capped')",
        "test_deferred_user_is_ready_once_the_window_has_rolled_on_and_a_dropped_one_never",
    ),
    _mutant(
        "ready takes no slot",
        "sql/migrations/0002_judgement.sql",
        "WHERE state IN ('ready', 'sending', 'in_doubt', 'sent');",
        "WHERE state IN ('sending', 'in_doubt', 'sent');",
        "test_limit_counts_every_state_that_holds_a_slot[ready]",
    ),
    _mutant(
        "in flight takes no slot",
        "sql/migrations/0002_judgement.sql",
        "WHERE state IN ('ready', 'sending', 'in_doubt', 'sent');",
        "WHERE state IN ('ready', 'in_doubt', 'sent');",
        "test_limit_counts_every_state_that_holds_a_slot[sending]",
    ),
    _mutant(
        "a doubt takes no slot",
        "sql/migrations/0002_judgement.sql",
        "WHERE state IN ('ready', 'sending', 'in_doubt', 'sent');",
        "WHERE state IN ('ready', 'sending', 'sent');",
        "test_limit_counts_every_state_that_holds_a_slot[in_doubt]",
    ),
    _mutant(
        "the slot of what was sent never ends",
        "sql/migrations/0002_judgement.sql",
        "WHEN 'sent' THEN sent_at\n",
        "WHEN 'sent' THEN 'infinity'\n",
        "test_deferred_user_is_ready_once_the_window_has_rolled_on_and_a_dropped_one_never",
    ),
)
