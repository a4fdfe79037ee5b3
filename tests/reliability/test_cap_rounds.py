"""A short run of the races for the frequency cap, ended by the same JSON line as the long one."""

from __future__ import annotations

import json

import pytest

from reliability import cap_rounds


def test_cap_rounds_reserve_exactly_what_is_allowed_and_catch_a_careless_limiter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cap_rounds.main(["--rounds", "48", "--careless-rounds", "3"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["rounds"], figures["over"], figures["under"]) == (48, 0, 0)
    assert figures["careless_over"] > 0


def test_cap_rounds_refuse_to_show_nothing() -> None:
    with pytest.raises(SystemExit):
        cap_rounds.main(["--rounds", "0"])
