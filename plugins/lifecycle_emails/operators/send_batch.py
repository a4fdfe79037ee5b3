"""Send the ready users of one group of batches, through the ledger's gate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from lifecycle_emails.errors import DeliveryError
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.campaign_operator import (
    CampaignOperator,
    mistakes_fail_at_once,
    open_ledger,
)
from lifecycle_emails.operators.sending_tools import sending_tools

if TYPE_CHECKING:
    from lifecycle_emails.delivery.sender import Sent

STOP_SECONDS = 4.0
"""Airflow kills a task 5 s after asking it to stop; answers under way are recorded before that."""

SKIP_REASONS = {
    "halted": (
        "Sending is halted. Nothing is lost: once it is resumed, the next scheduled run sends these users, or"
        " clear this task to send them at once."
    ),
    "provider_stopped": (
        "The SMTP provider refused so much that sending through it is stopped. Maintenance tries it with one"
        " mail every time it runs and lifts the stop; the next scheduled run sends these users then, or clear"
        " this task."
    ),
}

LEFT_BECAUSE = {
    "stop": "this task was asked to stop",
    "leased": "another task is at them",
}

Result = TypeVar("Result")


class SendBatchOperator(CampaignOperator):
    """Send the users of one group of batches who are ready, each at most once, over several SMTP connections.

    Fails, to be retried, while it leaves users who could be mailed now; a retry mails those and nobody else.
    Users due again within ``max_wait`` (refused for now by the server) are waited for without holding a
    worker. Ends as skipped, with the reason, while sending is halted or the provider is stopped: retries
    would not help. Asked to stop (a clear, a deploy, a time-out), it sends no further message and records the
    answers to those under way.

    Returns counts.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param group: the batches to send, one item of RateLimitOperator's result (templated)
    :param max_wait: users due again within this time are waited for; a later scheduled run takes the others
    :param give_up_waiting_after: time since the first wait after which nothing is waited for any more
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "group")
    ui_color = "#fdf1dc"

    def __init__(
        self,
        *,
        group: dict[str, Any],
        max_wait: timedelta = timedelta(hours=1),
        give_up_waiting_after: timedelta = timedelta(hours=6),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.group = group
        self.max_wait = max_wait
        self.give_up_waiting_after = give_up_waiting_after
        self._stop: threading.Event | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is ready in the group."""
        with mistakes_fail_at_once():
            sent = self._send(context)
        self.log.info(
            "%s: %d sent, %d refused by the server for good, %d held, %d in doubt, %d refused for now, in"
            " %.1f s.",
            self.group["label"],
            sent.sent,
            sent.rejected,
            sent.held,
            sent.in_doubt,
            sent.refused_for_now,
            sent.seconds,
        )
        self._emit(sent)
        self.end_by_what_is_left(context, sent)
        return sent.as_dict()

    def _emit(self, sent: Sent) -> None:
        tags = {"campaign": self.campaign_id}
        metrics.count("lifecycle.sent", sent.sent, **tags)
        metrics.count("lifecycle.rejected", sent.rejected, **tags)
        metrics.count("lifecycle.in_doubt", sent.in_doubt, **tags)
        metrics.count("lifecycle.refused_for_now", sent.refused_for_now, **tags)
        metrics.count("lifecycle.throttled", 0 if sent.throttled_until is None else 1, **tags)
        if sent.gate_seconds is not None and sent.gate_slowest_seconds is not None:
            metrics.timing("lifecycle.gate.duration", sent.gate_seconds, **tags)
            metrics.timing("lifecycle.gate.slowest", sent.gate_slowest_seconds, **tags)

    def on_kill(self) -> None:
        """Stop sending. Airflow calls this on SIGTERM, in the main thread."""
        if self._stop is not None:
            self._stop.set()
            self.log.warning("Asked to stop: nothing more is sent; answers under way are being recorded.")

    def stop_event(self) -> threading.Event:
        """Give the event that `on_kill` sets: a new one, since operators are copied and events cannot be."""
        self._stop = threading.Event()
        return self._stop

    def _send(self, context: Context) -> Sent:
        from lifecycle_emails.delivery.sender import send_group  # noqa: PLC0415  (psycopg comes with these)
        from lifecycle_emails.ledger.batches import Group, due_rows  # noqa: PLC0415
        from lifecycle_emails.ledger.lateness import hold_late  # noqa: PLC0415
        from lifecycle_emails.ledger.steps import record_step  # noqa: PLC0415

        include_dir = Path(self.include_dir)
        campaign, request = self.read_run(context)
        tools = sending_tools(campaign, include_dir, self.ledger_conn_id)
        group = Group.from_dict(self.group)
        with open_ledger(self.ledger_conn_id) as ledger:
            days = sorted({day for day, _ in group.batches})
            record_step(ledger, campaign.id, days, "send_batch", request.run)
            hold_late(ledger, campaign, days, request.max_lateness_days)
            if context["ti"].try_number > 1:
                due = due_rows(ledger, campaign.id, group.batches)
                self.log.info("This rerun will send %d: the others of its users are done with.", due.now)
        stop = self.stop_event()
        return in_thread(lambda: send_group(tools, group, stop=stop), stop)

    def end_by_what_is_left(self, context: Context, sent: Sent) -> None:
        """End the task otherwise than as a success where users are left who may still be mailed."""
        if sent.stopped_by in SKIP_REASONS:
            raise AirflowSkipException(SKIP_REASONS[sent.stopped_by])
        if sent.throttled_until is not None:
            self._wait_for_throttle(sent, sent.throttled_until)
        if sent.due_now:
            why = LEFT_BECAUSE.get(sent.stopped_by or "", "the log above says why")
            raise DeliveryError(
                f"{self.group['label']}: {sent.due_now} users could be mailed now and were not: {why}. "
                "The retry goes on with them."
            )
        if sent.next_due is not None:
            self._wait_for_next(context, sent.next_due, sent.due_later)

    def _wait_for_throttle(self, sent: Sent, until: datetime) -> None:
        """Come back when the throttle gives turns again: without a slot till then, its users keep theirs."""
        now = datetime.now(UTC)
        if sent.stopped_by == "throttled_for_today" and until - now > self.max_wait:
            raise AirflowSkipException(
                f"The daily maximum of this SMTP connection's throttle is reached. {sent.due_now} users stay"
                f" ready; it gives mails again from {until} on, and a later scheduled run takes them before"
                " their deadline."
            )
        self.log.info("%d users wait for the throttle; this task comes back at %s.", sent.due_now, until)
        raise AirflowRescheduleException(max(until, now))

    def _wait_for_next(self, context: Context, next_due: datetime, users: int) -> None:
        now = datetime.now(UTC)
        waiting_since = context["ti"].get_first_reschedule_date(context) or now
        if next_due - now > self.max_wait or now - waiting_since > self.give_up_waiting_after:
            self.log.info("%d users are due again at %s; a later scheduled run takes them.", users, next_due)
            return
        self.log.info("%d users are due again, from %s on; this task waits for them.", users, next_due)
        raise AirflowRescheduleException(max(next_due, now))


def in_thread(work: Callable[[], Result], stop: threading.Event) -> Result:
    """Work in a thread of its own, so that a time-out or a signal in the main thread never cuts into it.

    When the main thread is interrupted, the work is asked to stop and given `STOP_SECONDS`. Waiting goes
    through a future, since an interrupted ``Thread.join`` takes a living thread for dead.
    """
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001  (the main thread raises it again)
            answer.set_exception(error)

    threading.Thread(target=run, name="send_batch", daemon=True).start()
    try:
        return answer.result()
    finally:
        if not answer.done():
            stop.set()
            wait([answer], timeout=STOP_SECONDS)
