"""Mutants say something only while their text stands in the code, and while their tests exist."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from reliability.mutants import MUTANTS, Mutant, MutantError, run_mutants
from reliability.mutants.mutant import PACKAGE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_text_of_a_mutant_stands_exactly_once(mutant: Mutant) -> None:
    text = (ROOT / PACKAGE / mutant.file).read_text()
    assert mutant.changed(text) != text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_tests_of_a_mutant_exist(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, name = test.split("::")
        assert f"def {name.split('[')[0]}(" in (ROOT / path).read_text()


def test_there_are_at_least_twenty_mutants_of_four_kinds_with_names_of_their_own() -> None:
    assert len(MUTANTS) >= 20
    assert set(Counter(mutant.kind for mutant in MUTANTS)) == {
        "protocol",
        "classifier",
        "limiter",
        "throttle",
    }
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("text", ["return 1\nreturn 1\n", "return 2\n"])
def test_mutant_whose_text_is_gone_or_doubled_is_an_error(text: str) -> None:
    with pytest.raises(MutantError, match="not once"):
        Mutant("m", "protocol", "x.py", "return 1", "return 0", ()).changed(text)


def test_one_mutant_is_killed_by_its_test_and_a_harmless_one_survives() -> None:
    fatal = next(mutant for mutant in MUTANTS if mutant.name == "silence after the dot is retried")
    harmless = Mutant(
        "harmless", "classifier", fatal.file, "REPLY_LENGTH = 200", "REPLY_LENGTH = 201", fatal.tests
    )
    killed, survived = run_mutants([fatal, harmless])
    assert killed.killed_by.startswith("test_no_answer_to_the_dot_is_in_doubt")
    assert not survived.killed
