"""What `make acceptance` makes of its figures. The day on Celery itself is `make acceptance`."""

from dataclasses import replace

import pytest

from reliability.acceptance.figures import Figures

GOOD = Figures(
    users=300,
    states={"sent": 294, "held: suppressed": 3, "held: invalid_address": 3},
    copies={str(number): 1 for number in range(294)},
    sent_by_worker={"worker-1": 1, "worker-2": 2},
    run_state="success",
    seconds=100.0,
)


def test_figures_of_a_good_day_break_no_promise() -> None:
    assert GOOD.broken_promises() == []
    assert GOOD.as_json() == {
        "users": 300,
        "sent": 294,
        "held": 6,
        "rejected": 0,
        "in_doubt": 0,
        "caught": 294,
        "max_copies": 1,
        "workers": 2,
        "run": "success",
        "seconds": 100.0,
    }
    assert "send tasks of worker-2" in GOOD.table()


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"run_state": "failed"}, "the run is a success (it is failed)"),
        ({"states": {**GOOD.states, "rejected": 1}}, "states of all 300 users"),
        ({"states": {**GOOD.states, "ready": 1}}, "nobody is left open"),
        ({"states": {"sent": 297, "held: suppressed": 3}}, "who cannot be written to is held"),
        ({"states": {"sent": 297, "held: invalid_address": 3}}, "who is suppressed is held"),
        ({"copies": {str(number): 1 for number in range(293)}}, "equals the ledger's (293, 294)"),
        ({"copies": {**GOOD.copies, "7": 2}}, "nobody got a second copy"),
        ({"sent_by_worker": {"worker-1": 3, "worker-2": 0}}, "every worker sends"),
        ({"sent_by_worker": {"worker-1": 3}}, "every worker sends"),
    ],
)
def test_every_promise_can_be_broken(changes: dict[str, object], broken: str) -> None:
    said = replace(GOOD, **changes).broken_promises()  # type: ignore[arg-type]
    assert any(broken in promise for promise in said), said
