"""The model of the protocol: the real one holds in every order of events, the careless ones and mutants do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reliability.protocol_model.__main__ import main
from reliability.protocol_model.properties import SETTLED
from reliability.protocol_model.protocol import CARELESS, LIMIT, LIMIT_WITHOUT_FREEZE, MUTANTS, TWO_COPIES
from reliability.protocol_model.state import State
from reliability.protocol_model.verdicts import (
    JUDGED_AGAIN,
    SCOPES_OF_REAL,
    Search,
    search,
    searches,
)
from tests.integration.ledger.rows import connect
from tests.integration.ledger.test_transitions import PAGE, pairs_in_table, pairs_of_database

SEARCHES = searches()
NOBODY_NOW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| nobody now", re.MULTILINE)


def name(what: Search) -> str:
    return f"{what.kind}-{what.protocol.name}-{what.scope.name}".replace(" ", "_")


@pytest.fixture(scope="module")
def moves_of_real() -> set[tuple[str, str]]:
    """Every change of a row's state that the real protocol makes, where judging is modelled in full."""
    (what,) = [s for s in SEARCHES if s.kind == "real" and s.scope is JUDGED_AGAIN]
    moves: set[tuple[str, str]] = set()

    def observe(before: State, after: State) -> None:
        moves.update((old.state, new.state) for old, new in zip(before.users, after.users, strict=True))

    assert search(what, observe=observe).checked.holds
    return {(old, new) for old, new in moves if old != new}


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", [s for s in SEARCHES if s.kind == "real" and s.scope is not JUDGED_AGAIN], ids=name
)
def test_real_protocol_holds_in_every_order_of_events(what: Search) -> None:
    verdict = search(what)
    assert verdict.checked.holds, [step.words for step in verdict.checked.trace]
    assert verdict.checked.states > 10_000


@pytest.mark.parametrize("what", [s for s in SEARCHES if not s.expected_to_hold], ids=name)
def test_careless_protocol_or_mutant_fails_as_expected(what: Search) -> None:
    verdict = search(what)
    assert verdict.as_expected, verdict.checked.broken
    assert verdict.checked.trace


@pytest.mark.parametrize("what", [s for s in SEARCHES if s.kind in ("limit", "stands behind")], ids=name)
def test_what_stands_behind_another_protection_is_not_missed(what: Search) -> None:
    assert search(what).as_expected


def test_real_protocol_is_searched_with_three_senders_and_four_careless_protocols_and_ten_mutants_fail() -> (
    None
):
    assert max(len(scope.lanes) for scope in SCOPES_OF_REAL) >= 3
    assert len(CARELESS) == 4
    assert len(MUTANTS) >= 10


def test_the_one_limit_is_the_freeze_between_the_look_at_the_clock_and_the_dot() -> None:
    (limit,) = [s for s in SEARCHES if s.protocol is LIMIT]
    trace = [step.words for step in search(limit).checked.trace]
    looked = trace.index("sender 1 looks at the clock")
    assert "answer_due of user 1 passes" in trace[looked : trace.index("sender 1 WRITES THE DOT")]
    assert "frozen in the few instructions between its last look at the clock and the" in PAGE
    assert LIMIT.fails_by == TWO_COPIES
    assert not LIMIT_WITHOUT_FREEZE.fails_by


def test_moves_of_the_model_are_those_of_the_table(moves_of_real: set[tuple[str, str]]) -> None:
    """All that the table allows, but for what it says nobody does now."""
    assert moves_of_real == pairs_in_table() - set(NOBODY_NOW.findall(PAGE))


def test_states_of_the_model_are_those_of_the_enum(ledger_database: str, moves_of_real) -> None:
    with connect(ledger_database) as ledger:
        rows = ledger.execute("SELECT unnest(enum_range(NULL::lifecycle.send_state))::text").fetchall()
    enum = {state for (state,) in rows}
    assert {state for move in moves_of_real for state in move} == enum
    assert SETTLED | {"sending", "in_doubt"} == enum


def test_moves_of_the_model_are_those_that_the_trigger_lets_pass(ledger_database: str, moves_of_real) -> None:
    allowed, _ = pairs_of_database(ledger_database)
    assert moves_of_real == allowed - set(NOBODY_NOW.findall(PAGE))


def test_model_does_not_import_what_it_is_a_model_of() -> None:
    folder = Path(__file__).parents[2] / "reliability" / "protocol_model"
    assert not [path.name for path in folder.glob("*.py") if "import lifecycle_emails" in path.read_text()]
    assert not [path.name for path in folder.glob("*.py") if "from lifecycle_emails" in path.read_text()]


def test_command_prints_the_shortest_way_to_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "lock held over the send"]) == 0
    printed = capsys.readouterr().out
    assert "lock held over the send" in printed
    assert re.search(r"^ +\d+\. sender \d WRITES THE DOT$", printed, re.MULTILINE)
    assert '"failed": 1' in printed.splitlines()[-1]
