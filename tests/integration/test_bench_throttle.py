"""The throttle's demonstration in short: workers killed in the middle, and the server's list as the judge."""

import json

import pytest

from bench import throttle


def test_throttle_keeps_its_word_over_workers_that_are_killed(capsys: pytest.CaptureFixture[str]) -> None:
    """That the rate is reached too is for a quiet machine; `python -m bench.throttle` asks for it."""
    throttle.main(["--seconds", "8", "--rate", "40", "--workers", "4", "--connections", "2"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["kills"], figures["connections"], figures["most_copies"]) == (4, 8, 1)
    assert figures["arrived"] > 20
    assert 1 <= figures["largest_excess"] <= 8
