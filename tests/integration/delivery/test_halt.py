"""A person halts a send of thousands: it stops within seconds, and after the resume everybody else gets one mail."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from datetime import UTC, datetime

import psycopg
import pytest

from lifecycle_emails.ledger.actions import Actor
from lifecycle_emails.operation import carry_out
from lifecycle_emails.order import Action, Order
from tests.daily_run import DailyRun

USERS = 2000
OUT_BEFORE = 100
WITHIN_SECONDS = 5.0


@pytest.mark.slow
def test_halted_send_of_thousands_stops_in_seconds_and_resumes_once_each(
    daily_run: DailyRun, smtp_server
) -> None:
    daily_run.include.write_campaign(connections=4)
    daily_run.add_users(*range(1, USERS + 1))
    sending = threading.Thread(target=daily_run.send, args=(daily_run.plan(),))
    sending.start()
    smtp_server.wait_until("dot", OUT_BEFORE, seconds=120)
    with psycopg.connect(daily_run.ledger_url, autocommit=True) as ledger:
        order = Order(Action.HALT, "wrong template", "welcome")
        assert carry_out(ledger, order, Actor("ada", "command"), ["welcome"]).result == "sending is halted"
        halted_at = datetime.now(UTC).timestamp()
    sending.join()
    out, last = len(smtp_server.accepted), max(mail.at for mail in smtp_server.accepted)
    sys.stdout.write(f"{out} of {USERS} out, the last {last - halted_at:.2f} s after the halt\n")
    assert out < USERS
    assert last - halted_at < WITHIN_SECONDS
    assert Counter(daily_run.states().values()) == {"sent": out, "ready": USERS - out}
    with psycopg.connect(daily_run.ledger_url, autocommit=True) as ledger:
        carry_out(ledger, Order(Action.RESUME, "mended", "welcome"), Actor("ada", "command"), ["welcome"])
    daily_run.send(daily_run.plan())
    assert smtp_server.copies() == {("welcome", str(user)): 1 for user in range(1, USERS + 1)}
