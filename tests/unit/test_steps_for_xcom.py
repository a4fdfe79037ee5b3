"""What steps hand to one another through XCom: counts and dates that JSON can hold, and no people."""

import json
from datetime import date

from lifecycle_emails.ledger.batches import Group
from lifecycle_emails.ledger.judging import Filtered, Limited
from lifecycle_emails.ledger.planning import Extracted
from lifecycle_emails.ledger.upkeep import Upkeep

DAY = date(2026, 5, 1)


def test_group_comes_out_of_json_as_it_went_in() -> None:
    group = Group(((DAY, 0), (DAY, 3)), 7)
    assert Group.from_dict(json.loads(json.dumps(group.as_dict()))) == group


def test_results_of_steps_are_plain_json() -> None:
    limited = Limited(2, 1, 0, 1, None, (Group(((DAY, 4),), 2),))
    results = [
        Extracted((DAY,), 5, 1, 1, 2, 1),
        Filtered({"stale": 3}, 1, 2),
        limited,
        Upkeep(1, 2, 3, 4, 5, 6),
    ]
    assert [json.loads(json.dumps(result.as_dict())) for result in results] == [
        {"cohort_dates": ["2026-05-01"], "found": 5, "new": 1, "moved": 1, "known": 2, "elsewhere": 1},
        {"held": {"stale": 3}, "already_sent": 1, "to_judge": 2},
        {
            "ready": 2, "capped": 1, "over_daily_limit": 0, "newly_refused": 1, "alert_id": None,
            "groups": [{"batches": [["2026-05-01", 4]], "size": 2}],
        },
        {"in_doubt": 1, "settled": 2, "stale": 3, "closed": 4, "missing": 5, "dropped": 6},
    ]  # fmt: skip
