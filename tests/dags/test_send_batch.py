"""What SendBatchOperator adds to the core: the thread it works in, and how it ends by what is left."""

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from lifecycle_emails.delivery.sender import Sent
from lifecycle_emails.errors import DeliveryError
from lifecycle_emails.operators import SendBatchOperator
from lifecycle_emails.operators.send_batch import in_thread


def make_operator(**arguments: Any) -> SendBatchOperator:
    return SendBatchOperator(
        task_id="send_batch",
        campaign_id="welcome",
        include_dir="include",
        group={"batches": [["2026-05-01", 1]], "size": 3, "label": "2026-05-01 batch 1 (3 users)"},
        **arguments,
    )


def make_sent(**changes: Any) -> Sent:
    nothing = {
        "sent": 0,
        "rejected": 0,
        "held": 0,
        "in_doubt": 0,
        "refused_for_now": 0,
        "due_now": 0,
        "due_later": 0,
        "next_due": None,
        "stopped_by": None,
        "seconds": 0.1,
    }
    return Sent(**{**nothing, **changes})


def make_context(waiting_since: datetime | None = None) -> Any:
    return {"ti": SimpleNamespace(get_first_reschedule_date=lambda _: waiting_since)}


def end(sent: Sent, *, waiting_since: datetime | None = None, **arguments: Any) -> None:
    make_operator(**arguments).end_by_what_is_left(make_context(waiting_since), sent)


def test_group_that_is_done_ends_well() -> None:
    end(make_sent(sent=2, rejected=1))


@pytest.mark.parametrize(
    ("stopped_by", "reason"), [("halted", "Sending is halted"), ("provider_stopped", "SMTP provider refused")]
)
def test_stop_that_retries_cannot_mend_skips_the_task(stopped_by: str, reason: str) -> None:
    with pytest.raises(AirflowSkipException, match=reason):
        end(make_sent(stopped_by=stopped_by, due_now=3))


def test_throttle_makes_the_task_come_back_and_give_its_slot_up_until_then() -> None:
    until = datetime.now(UTC) + timedelta(seconds=7)
    with pytest.raises(AirflowRescheduleException) as waiting:
        end(make_sent(stopped_by="throttled", due_now=3, throttled_until=until))
    assert waiting.value.reschedule_date == until


def test_daily_maximum_of_the_throttle_is_waited_for_near_midnight_and_skips_the_task_before() -> None:
    for_today = {"stopped_by": "throttled_for_today", "due_now": 3}
    until = datetime.now(UTC) + timedelta(minutes=20)
    with pytest.raises(AirflowRescheduleException):
        end(make_sent(**for_today, throttled_until=until))
    with pytest.raises(AirflowSkipException, match="3 users stay ready"):
        end(make_sent(**for_today, throttled_until=until + timedelta(hours=2)))


def test_users_left_fail_the_task_so_that_it_is_retried() -> None:
    with pytest.raises(DeliveryError, match="3 users could be mailed now and were not"):
        end(make_sent(due_now=3))


@pytest.mark.parametrize(
    ("stopped_by", "reason"), [("leased", "another task is at them"), ("stop", "this task was asked to stop")]
)
def test_reason_why_users_are_left_is_said(stopped_by: str, reason: str) -> None:
    with pytest.raises(DeliveryError, match=f"not: {reason}"):
        end(make_sent(due_now=3, stopped_by=stopped_by))


def test_task_that_was_asked_to_stop_when_all_was_done_ends_well() -> None:
    end(make_sent(sent=3, stopped_by="stop"))


def test_users_due_again_within_the_hour_are_waited_for() -> None:
    next_due = datetime.now(UTC) + timedelta(minutes=20)

    with pytest.raises(AirflowRescheduleException) as wait:
        end(make_sent(due_later=1, next_due=next_due))

    assert wait.value.reschedule_date == next_due


def test_users_due_later_than_that_are_left_to_a_later_run() -> None:
    end(make_sent(due_later=1, next_due=datetime.now(UTC) + timedelta(minutes=70)))


def test_nothing_is_waited_for_without_end() -> None:
    now = datetime.now(UTC)

    end(
        make_sent(due_later=1, next_due=now + timedelta(minutes=1)),
        waiting_since=now - timedelta(hours=2),
        give_up_waiting_after=timedelta(hours=1),
    )


def test_work_in_a_thread_gives_its_result_and_its_error() -> None:
    def fail() -> None:
        raise DeliveryError("no connection")

    assert in_thread(lambda: 42, threading.Event()) == 42
    with pytest.raises(DeliveryError, match="no connection"):
        in_thread(fail, threading.Event())


def test_time_out_asks_the_work_to_stop_and_waits_for_its_answers() -> None:
    stop, steps = threading.Event(), []

    def work() -> None:
        stop.wait()
        steps.append("answers recorded")

    with pytest.raises(AirflowTaskTimeout), timeout(0.1):
        in_thread(work, stop)

    assert steps == ["answers recorded"]


def test_sigterm_stops_the_work_while_the_main_thread_waits_for_it() -> None:
    operator = make_operator()
    working = operator.stop_event()

    def work() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "stopped" if working.wait(timeout=10) else "went on"

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())  # as Airflow's task runner does
    try:
        assert in_thread(work, working) == "stopped"
    finally:
        signal.signal(signal.SIGTERM, before)
