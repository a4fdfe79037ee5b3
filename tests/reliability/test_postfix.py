"""The dot against a real MTA: until the whole of it is there, Postfix has accepted nothing."""

from __future__ import annotations

import pytest

from reliability.mta_cuts import WAYS, Cut, cut_everywhere, table
from reliability.postfix import running_postfix, why_postfix_cannot_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_postfix_cannot_run() is not None, reason=why_postfix_cannot_run() or ""),
]


@pytest.fixture(scope="module")
def cuts() -> list[Cut]:
    with running_postfix() as postfix:
        return cut_everywhere(postfix)


def test_postfix_accepts_nothing_before_the_whole_dot(cuts: list[Cut]) -> None:
    before = [cut for cut in cuts if not cut.point.whole]
    assert len(before) > 30 * len(WAYS)
    assert [cut for cut in before if cut.accepted] == []


def test_postfix_accepts_everything_after_the_whole_dot(cuts: list[Cut]) -> None:
    assert {cut.way: cut.accepted for cut in cuts if cut.point.whole} == dict.fromkeys(WAYS, 1)


def test_session_takes_nothing_for_sent_that_was_not_and_nothing_for_refused_that_was_accepted(
    cuts: list[Cut],
) -> None:
    assert [cut for cut in cuts if not cut.holds] == []
    assert not any("DOES NOT HOLD" in line for line in table(cuts))
