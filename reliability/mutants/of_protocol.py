"""Mutants of the protocol: the gate, its queries, the lane, the sweep, and the triggers behind them."""

from __future__ import annotations

from reliability.mutants.mutant import Mutant

_GATE_TESTS = "tests/integration/ledger/test_gate.py::"
_SENDER_TESTS = "tests/integration/delivery/test_sender.py::"
_TRANSITION_TESTS = "tests/integration/ledger/test_transitions.py::"
_EXTENDING_TESTS = "tests/integration/ledger/test_extending.py::"
_MOVING_TESTS = "tests/integration/test_moving.py::"
_UPKEEP_TESTS = "tests/integration/ledger/test_upkeep.py::"


def _mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, "protocol", file, old, new, tests)


PROTOCOL = (
    _mutant(
        "gate takes a row in flight",
        "sql/queries/pass_gate.sql",
        "AND s.state = 'ready'",
        "AND s.state IN ('ready', 'sending')",
        _GATE_TESTS + "test_second_asker_of_a_row_loses",
    ),
    _mutant(
        "gate does not see suppressed users",
        "sql/queries/pass_gate.sql",
        "WHERE x.user_id = a.user_id AND",
        "WHERE false AND",
        _GATE_TESTS + "test_suppressed_at_the_gate_is_held",
    ),
    _mutant(
        "gate does not see suppressed addresses",
        "sql/queries/pass_gate.sql",
        "WHERE x.address_hash = a.address_hash AND",
        "WHERE false AND",
        _GATE_TESTS + "test_suppressed_at_the_gate_is_held",
    ),
    _mutant(
        "gate does not see the deadline",
        "sql/queries/pass_gate.sql",
        "WHEN now() >= c.not_after THEN",
        "WHEN false THEN",
        _GATE_TESTS + "test_past_the_deadline_at_the_gate_is_held_as_stale",
    ),
    _mutant(
        "gate does not see halts",
        "sql/queries/pass_gate.sql",
        "WHERE lifted_at IS NULL AND (campaign IS NULL OR campaign = %(campaign)s)",
        "WHERE false",
        _GATE_TESTS + "test_halt_stops_a_running_gate_and_resuming_lets_it_pass",
    ),
    _mutant(
        "answer_due before the answer can come",
        "ledger/gate.py",
        '"answer_seconds": DOT_WITHIN_SECONDS + terms.dot_timeout + ANSWER_MARGIN_SECONDS',
        '"answer_seconds": DOT_WITHIN_SECONDS',
        _GATE_TESTS + "test_passage_is_committed_with_token_and_answer_due",
    ),
    _mutant(
        "dot on a lost COMMIT",
        "ledger/gate.py",
        "                question.answer(Passage.NOT_COMMITTED)\n            self._recover(records)\n",
        "                question.answer(Passage.PASSED)\n            self._recover(records)\n",
        _GATE_TESTS + "test_lost_answer_to_commit_allows_no_dot_and_is_read_back",
    ),
    _mutant(
        "a lost COMMIT is not read back",
        "ledger/gate.py",
        "self._unresolved = [] if isinstance(error, ABORTED) else questions\n",
        "self._unresolved = []\n",
        _GATE_TESTS + "test_lost_answer_to_commit_allows_no_dot_and_is_read_back",
    ),
    _mutant(
        "outcomes are lost with their group",
        "ledger/gate.py",
        "            self._recover(records)\n",
        "            self._recover([])\n",
        _GATE_TESTS + "test_server_that_drops_connections_loses_no_outcome",
    ),
    _mutant(
        "outcomes of one user in no order",
        "ledger/gate.py",
        "            if settled.setdefault(record.user_id, record) is not record:",
        "            if settled.setdefault(record.user_id, record) is None:",
        _GATE_TESTS + "test_two_outcomes_of_one_user_are_recorded_in_their_order",
    ),
    _mutant(
        "a key twice in a group",
        "ledger/gate.py",
        "elif question.user_id in settled or (group and group[-1].user_id == question.user_id):",
        "elif question.user_id in settled:",
        _GATE_TESTS + "test_two_questions_about_one_user_that_wait_together_get_one_passage",
    ),
    _mutant(
        "outcome without the token",
        "sql/queries/record_outcomes.sql",
        "ELSE s.attempt = o.attempt AND s.state IN",
        "ELSE s.state IN",
        _GATE_TESTS + "test_outcome_with_another_token_changes_nothing",
    ),
    _mutant(
        "late answers are dropped",
        "sql/queries/record_outcomes.sql",
        "AND s.state IN ('sending', 'in_doubt')",
        "AND s.state IN ('sending')",
        _GATE_TESTS + "test_outcome_settles_a_sending_row_and_late_one_in_doubt",
    ),
    _mutant(
        "refusal before the gate over a row in flight",
        "sql/queries/record_outcomes.sql",
        "WHEN o.attempt IS NULL THEN s.state = 'ready'",
        "WHEN o.attempt IS NULL THEN s.state IN ('ready', 'sending')",
        _GATE_TESTS + "test_refusal_before_the_gate_changes_no_row_in_flight",
    ),
    _mutant(
        "sweep to ready",
        "sql/queries/sweep_cohorts.sql",
        "SET state = 'in_doubt'",
        "SET state = 'ready'",
        _UPKEEP_TESTS + "test_unanswered_send_becomes_in_doubt_after_answer_due_and_is_told_once",
    ),
    _mutant(
        "sweep before answer_due",
        "sql/queries/sweep_cohorts.sql",
        "AND s.answer_due < now()",
        "AND s.gate_at <= now()",
        _UPKEEP_TESTS + "test_unanswered_send_becomes_in_doubt_after_answer_due_and_is_told_once",
    ),
    _mutant(
        "cohort closes over a row in flight",
        "sql/queries/close_cohorts.sql",
        "('planned', 'ready', 'sending')",
        "('planned', 'ready')",
        _UPKEEP_TESTS + "test_cohort_with_a_row_whose_answer_may_come_is_not_closed",
    ),
    _mutant(
        "cohort closes over a refusal being committed",
        "ledger/upkeep.py",
        '            ledger.execute(query("lock_overdue_cohorts"), arguments)\n',
        "",
        _UPKEEP_TESTS + "test_refusal_that_is_committed_while_its_cohort_closes_leaves_nobody_behind",
    ),
    _mutant(
        "late refusal stays in a closed cohort",
        "sql/migrations/0003_rules.sql",
        "OLD.state IN ('in_doubt', 'rejected')",
        "OLD.state = 'rejected'",
        _UPKEEP_TESTS + "test_late_refusal_in_a_closed_cohort_opens_it_and_the_next_round_holds_the_user",
    ),
    _mutant(
        "late refusal waits for no closing round",
        "sql/migrations/0003_rules.sql",
        "    FOR NO KEY UPDATE;\n",
        "    ;\n",
        _UPKEEP_TESTS + "test_refusal_that_begins_while_its_cohort_closes_leaves_nobody_behind",
    ),
    _mutant(
        "retention forgets that a mail was accepted",
        "sql/queries/drop_send_detail.sql",
        "queue_id = CASE WHEN s.state <> 'sent' THEN s.queue_id END",
        "queue_id = NULL",
        _UPKEEP_TESTS + "test_retention_keeps_what_keeps_a_mail_from_being_sent_again",
    ),
    _mutant(
        "retention forgets that a mail was ever in doubt",
        "sql/queries/drop_old_events.sql",
        " AND to_state <> 'in_doubt'",
        "",
        _UPKEEP_TESTS + "test_retention_keeps_what_keeps_a_mail_from_being_sent_again",
    ),
    _mutant(
        "extension doubts nobody gated before the backup",
        "sql/queries/doubt_arrivals.sql",
        "AND (s.attempt IS NULL OR s.gate_at < t.since)",
        "AND s.attempt IS NULL",
        _EXTENDING_TESTS
        + "test_extending_doubts_whoever_may_have_been_mailed_by_an_extension_that_is_forgotten",
    ),
    _mutant(
        "lane writes the dot whatever the gate says",
        "delivery/lane.py",
        "if passage is not Passage.PASSED:",
        "if passage is Passage.HALTED:",
        _SENDER_TESTS + "test_unsubscribe_between_planning_and_gate_is_obeyed",
    ),
    _mutant(
        "lane writes the dot however late",
        "delivery/lane.py",
        "if uptime() - asked_at > DOT_WITHIN_SECONDS:",
        "if asked_at < 0:",
        _SENDER_TESTS + "test_passage_that_comes_too_late_is_given_back_without_a_dot",
    ),
    _mutant(
        "one token for all dialogues",
        "delivery/lane.py",
        "attempt = uuid4()",
        "attempt = uuid4().__class__(int=1)",
        _SENDER_TESTS + "test_refused_for_now_is_tried_again_later_and_a_refused_recipient_is_not",
    ),
    _mutant(
        "silence after the dot counts as a refusal",
        "delivery/lane.py",
        "Verdict.IN_DOUBT: RecordedAs.IN_DOUBT",
        "Verdict.IN_DOUBT: RecordedAs.RETRY",
        _SENDER_TESTS + "test_no_answer_to_the_dot_is_in_doubt_and_never_sent_again",
    ),
    _mutant(
        "trigger lets a sent mail be sent again",
        "sql/migrations/0003_rules.sql",
        "WHEN 'sent' THEN false",
        "WHEN 'sent' THEN NEW.state = 'planned'",
        _TRANSITION_TESTS + "test_database_allows_exactly_the_pairs_of_the_table",
    ),
    _mutant(
        "trigger lets a doubt be ready",
        "sql/migrations/0003_rules.sql",
        "WHEN 'in_doubt' THEN NEW.state IN ('planned', 'sent', 'rejected')",
        "WHEN 'in_doubt' THEN NEW.state IN ('planned', 'ready', 'sent', 'rejected')",
        _TRANSITION_TESTS + "test_database_allows_exactly_the_pairs_of_the_table",
    ),
    _mutant(
        "trigger lets a doubt move to another cohort",
        "sql/migrations/0003_rules.sql",
        "OLD.cohort_date <> NEW.cohort_date AND OLD.state NOT IN ('planned', 'held', 'ready')",
        "OLD.cohort_date <> NEW.cohort_date AND OLD.state NOT IN ('planned', 'held', 'ready', 'in_doubt')",
        _TRANSITION_TESTS + "test_database_refuses",
    ),
    _mutant(
        "who was attempted in vain is not moved",
        "sql/queries/move_arrivals.sql",
        "WHERE s.ctid = moving.row_at",
        "WHERE s.attempt IS NULL AND s.ctid = moving.row_at",
        _MOVING_TESTS + "test_corrected_creation_date_moves_who_was_attempted_in_vain_and_the_mail_goes_out",
    ),
    _mutant(
        "trigger lets a token pass twice",
        "sql/migrations/0003_rules.sql",
        "(OLD.state = 'ready' AND NEW.state = 'sending' AND NEW.attempt IS NOT DISTINCT FROM OLD.attempt)",
        "(OLD.state = 'ready' AND NEW.state = 'sending' AND NEW.attempt IS NULL)",
        _GATE_TESTS + "test_token_that_passed_once_never_passes_again",
    ),
    _mutant(
        "trigger lets a row in flight be ready",
        "sql/migrations/0003_rules.sql",
        "    (\n        (OLD.state = 'sending' AND NEW.state = 'ready')",
        "    (\n        (OLD.state = 'sending' AND NEW.state = 'planned')",
        _TRANSITION_TESTS + "test_database_refuses",
    ),
    _mutant(
        "bounce under no known queue id can be released",
        "sql/queries/settle_by_evidence.sql",
        "CASE WHEN v.state = 'rejected' THEN 'unknown' END",
        "NULL",
        "tests/integration/ledger/test_evidence.py"
        "::test_mail_that_bounced_under_no_known_queue_id_is_not_released_either",
    ),
    _mutant(
        "a commit that the server could forget",
        "sql/queries/state_settings.sql",
        "    set_config('synchronous_commit', 'on', true),\n",
        "",
        "tests/integration/ledger/test_session.py::test_gate_waits_for_its_commit_whatever_the_server_is_set_to",
    ),
    _mutant(
        "a COMMIT under way is not waited for",
        "ledger/gate.py",
        '            ledger.execute(query("lock_sends"), self._keys(records, ()))\n',
        "",
        "tests/integration/ledger/test_gate_troubles.py"
        "::test_commit_still_under_way_when_its_connection_is_lost_is_waited_for_and_taken_back",
    ),
    _mutant(
        "a locked row takes the group's outcomes along",
        "ledger/gate.py",
        "        except (*UNSTORABLE, *ABORTED):\n",
        "        except UNSTORABLE:\n",
        "tests/integration/ledger/test_gate_troubles.py"
        "::test_outcome_of_a_row_that_somebody_has_locked_waits_and_the_others_are_recorded",
    ),
    _mutant(
        "trigger lets a key be deleted",
        "sql/migrations/0003_rules.sql",
        "BEFORE DELETE OR TRUNCATE ON lifecycle.sends",
        "BEFORE TRUNCATE ON lifecycle.sends",
        _TRANSITION_TESTS + "test_database_refuses",
    ),
    _mutant(
        "trigger lets a doubt be rejected and released",
        "sql/migrations/0003_rules.sql",
        "OLD.state IN ('sending', 'in_doubt') AND NEW.state = 'rejected' AND",
        "OLD.state = 'sending' AND NEW.state = 'rejected' AND",
        _TRANSITION_TESTS + "test_database_refuses",
    ),
    _mutant(
        "a late acceptance of what is to be sent again is not believed",
        "sql/queries/record_outcomes.sql",
        "s.attempt = o.attempt AND s.state NOT IN ('sent', 'rejected')",
        "s.attempt = o.attempt AND s.state IN ('sending', 'in_doubt')",
        _GATE_TESTS + "test_acceptance_that_comes_after_a_person_said_send_again_is_believed",
    ),
    _mutant(
        "what the kernel holds is sent after a connection was given up",
        "delivery/smtp_connection.py",
        "socket.SO_LINGER, _RESET_ON_CLOSE",
        "socket.SO_LINGER, _SEND_THE_REST_ON_CLOSE",
        "tests/integration/smtp_session/test_dot_left_behind.py"
        "::test_dot_whose_answer_was_not_waited_for_any_longer_is_never_sent",
    ),
    _mutant(
        "a locked row keeps the sweep from all others",
        "sql/queries/sweep_cohorts.sql",
        "    FOR UPDATE OF s SKIP LOCKED\n",
        "    FOR UPDATE OF s\n",
        "tests/integration/ledger/test_upkeep.py::test_row_that_somebody_has_locked_keeps_no_other_from_the_sweep",
    ),
)
