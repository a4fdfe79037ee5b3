"""The mails of one pass: read ahead of need, and no more of them once it has ended."""

from __future__ import annotations

import threading
import time
from typing import cast

import pytest

from lifecycle_emails.delivery import mails as module
from lifecycle_emails.delivery.lane import Tally
from lifecycle_emails.delivery.mails import PROFILES_AT_ONCE, Keys, Mails, profiles_at_once
from lifecycle_emails.ledger.gate import Gate
from lifecycle_emails.ledger.planning import planned_cohort
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import one_row
from lifecycle_emails.throttle import Throttle
from tests.daily_run import DailyRun, today


def test_nothing_is_given_after_the_end_though_more_was_read(
    daily_run: DailyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROFILES_AT_ONCE", 1)
    daily_run.add_users(1, 2, 3)
    daily_run.plan()
    mails = Mails(
        daily_run.tools,
        [(planned_cohort(daily_run.ledger, "welcome", today()), ["1", "2", "3"])],
        Keys(*one_row(daily_run.ledger.execute(query("installation_keys")))),
        cast("Gate", None),  # everybody here can be mailed, so nobody is held
        Tally(),
        threading.Event,
    )
    first = mails.next()
    assert first is not None
    assert first.user_id == "1"
    deadline = time.monotonic() + 30
    while mails._read is None:  # the next one, read ahead
        assert time.monotonic() < deadline
        time.sleep(0.01)
    mails.end()
    assert mails.next() is None
    assert mails.failure is None


@pytest.mark.parametrize(
    ("throttle", "users"),
    [
        (None, PROFILES_AT_ONCE),
        (Throttle(mails_per_day=3), PROFILES_AT_ONCE),
        (Throttle(mails_per_second=1000), PROFILES_AT_ONCE),
        (Throttle(mails_per_second=14), 140),
        (Throttle(mails_per_second=0.25), 2),
        (Throttle(mails_per_second=0.001), 1),
    ],
)
def test_under_a_rate_so_many_profiles_are_read_as_are_sent_in_ten_seconds(
    throttle: Throttle | None, users: int
) -> None:
    assert profiles_at_once(throttle) == users
