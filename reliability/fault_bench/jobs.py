"""What a child process does: steps of a daily run with the real package, as an Airflow task would call them.

A job is a JSON object: ``steps`` (names below), ``campaign``, ``include``, ``ledger``, ``source``, ``smtp``
(keyword arguments of SmtpSettings), ``result`` (a file to write), and what `points` reads. Runs only in
children of the process server; knows the package under test, and nothing of what is expected of it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.delivery.probe import probe_provider
from lifecycle_emails.delivery.sender import SendingTools, send_group
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.batches import ready_groups
from lifecycle_emails.ledger.judging import filter_ledger, limit_rate
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.ledger.planning import extract_cohort
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.upkeep import keep_up
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.throttle import load_throttle
from reliability.fault_bench.points import Points, install

Job = dict[str, Any]


def run(job: Job) -> None:
    """Do the steps and write what came of them: ``{"done": {step: result}, "error": words or null}``."""
    done: dict[str, Any] = {}
    error = None
    try:
        work = _Work(job)
        _wait_for_start(job)
        for step in job["steps"]:
            done[step] = work.step(step)
    except Exception as failure:  # noqa: BLE001  (whatever it is, the bench reads of it)
        error = f"{type(failure).__name__}: {failure}"
    result = Path(job["result"])
    unfinished = result.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"done": done, "error": error}, default=str))
    unfinished.rename(result)


def _wait_for_start(job: Job) -> None:
    """Begin together with other processes, at a moment of the monotonic clock."""
    time.sleep(max(0.0, job.get("start_at", 0.0) - time.monotonic()))


class _Work:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        self._points = Points(job)
        install(self._points)

    def step(self, name: str) -> Any:
        steps: dict[str, Callable[[], Any]] = {
            "migrate": self._migrate,
            "extract": self._extract,
            "filter": self._filter,
            "limit": self._limit,
            "send": self._send,
            "sweep": self._sweep,
            "reconcile": self._reconcile,
            "probe": self._probe,
            "suppress": self._suppress,
            "settle": self._settle,
            "deliver": self._deliver,
        }
        self._points.step = name
        return steps[name]()

    def _ledger(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._job["ledger"], autocommit=True)

    def _source(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._job["source"], autocommit=True)

    def _dates(self) -> list[date]:
        return [date.fromisoformat(day) for day in self._job["dates"]]

    @cached_property
    def _tools(self) -> SendingTools:
        include = Path(self._job["include"])
        campaign = load_campaign(include, self._job["campaign"])
        return SendingTools(
            campaign=campaign,
            audience=Audience.load(include, campaign),
            templates=MessageTemplates.load(include, campaign),
            smtp=SmtpSettings(**self._job["smtp"]),
            connect_ledger=lambda: psycopg.connect(self._job["ledger"]),
            connect_source=lambda: psycopg.connect(self._job["source"]),
            throttle=load_throttle(include, campaign.smtp_conn_id),
        )

    def _migrate(self) -> list[str]:
        with self._ledger() as ledger:
            return migrate(ledger)

    def _extract(self) -> list[Any]:
        tools = self._tools
        with self._ledger() as ledger, self._source() as source:
            found = [
                extract_cohort(ledger, source, tools.campaign, tools.audience, day, with_earlier=False)
                for day in self._dates()
            ]
        self._points.passed("extract: done")
        return [one.as_dict() for one in found]

    def _filter(self) -> Any:
        with self._ledger() as ledger:
            filtered = filter_ledger(ledger, self._tools.campaign, self._dates())
        self._points.passed("filter: done")
        return filtered.as_dict()

    def _limit(self) -> Any:
        rules = [
            CapRule(name, most, timedelta(seconds=seconds))
            for name, most, seconds in self._job.get("rules", [("no_cap", 1000, 86400)])
        ]
        with self._ledger() as ledger:
            limited = limit_rate(
                ledger, self._tools.campaign, rules, self._dates(),
                callbacks=self._job.get("callbacks", ()), run="fault bench", max_groups=1024,
            )  # fmt: skip
        self._points.passed("limit: done")
        return limited.as_dict()

    def _send(self) -> list[Any]:
        tools = self._tools
        with self._ledger() as ledger:
            groups = ready_groups(ledger, tools.campaign, self._dates(), max_groups=1024)
        sent, failure = [], None
        for group in groups:
            try:
                sent.append(send_group(tools, group, stop=self._stop).as_dict())
            except Exception as error:  # noqa: BLE001  (mapped tasks do not stop one another)
                failure = error
        if failure is not None:
            raise failure
        return sent

    def _sweep(self) -> Any:
        with self._ledger() as ledger:
            return keep_up(ledger, [], now=datetime.now(UTC)).as_dict()

    def _reconcile(self) -> Any:
        with self._ledger() as ledger:
            found = reconcile(ledger, self._tools.campaign, self._dates())
        return {"problems": list(found.problems), "counts": found.counts, "waiting": found.waiting_until}

    def _probe(self) -> bool | None:
        return probe_provider(self._tools)

    def _suppress(self) -> bool:
        with self._ledger() as ledger:
            return suppress(
                ledger, user_id=self._job["suppressed"], reason="unsubscribed", actor="fault bench"
            )

    def _settle(self) -> str:
        """A named person settles every doubt of the campaign: to be sent again."""
        from lifecycle_emails.ledger.settling import SettleAs, Which, settle  # noqa: PLC0415

        with self._ledger() as ledger:
            settled = settle(
                ledger, self._job["campaign"], Which(), SettleAs.SEND_AGAIN,
                reason="the process is taken for dead", actor="fault bench",
            )  # fmt: skip
        return str(settled)

    def _deliver(self) -> list[str]:
        """Call the real delivery of the alert task with a callback that writes to a file, and may fail."""
        from lifecycle_emails.ledger.alerts import undelivered_alerts  # noqa: PLC0415
        from lifecycle_emails.operators.alert import AlertOperator, deliver  # noqa: PLC0415
        from lifecycle_emails.operators.alert_callbacks import callback_keys  # noqa: PLC0415

        operator = AlertOperator(task_id="alert", callbacks=[self._tell], campaign_id=self._job["campaign"])
        keys = callback_keys(operator.callbacks)
        with self._ledger() as ledger:
            alerts = undelivered_alerts(ledger, self._job["campaign"])
            return deliver(operator, {}, ledger, alerts, keys)

    def _tell(self, context: Any) -> None:
        if self._job.get("callback_fails"):
            raise RuntimeError("the callback fails")
        with Path(self._job["told"]).open("a", encoding="utf-8") as file:
            file.write(f"{context['alert']['id']}\n")
            file.flush()
            os.fsync(file.fileno())
        self._points.passed("callback: returned")
