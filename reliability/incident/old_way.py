"""Scene one: the mails of the incident, on two real Celery workers and a real Redis."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery  # type: ignore[import-untyped]

from local_stack.airflow_environment import base_environment
from local_stack.errors import StackError
from local_stack.mail_store import MailStore
from local_stack.ports import free_port
from reliability.celery_stack import CeleryStack
from reliability.incident.scale import DELAY_SECONDS, TRANSPORT_OPTIONS, USERS
from reliability.worker_log import Deliveries, read_deliveries

TASK = "reliability.incident.old_app.send_lifecycle_mail"
QUEUE = "celery"
UNACKED = "unacked"
DATABASE = 1
"""Of the same Redis; Airflow's messages are in database 0."""
WORKERS = ("old-worker-1", "old-worker-2")
END_SECONDS = 180
"""How long after their time the mails may take to be all sent."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class OldWay:
    """What came of it: copies by user id, and how often the broker handed out each task."""

    copies: dict[str, int]
    deliveries: Deliveries


class OldApplication:
    """The old application beside a stack that has a running Redis."""

    def __init__(self, stack: CeleryStack) -> None:
        self._stack = stack
        self._store = stack.settings.state / "old_mails.sqlite"
        self._broker = stack.broker(DATABASE)

    def start(self) -> None:
        """Start its mail server and its workers, and schedule a mail for every user."""
        port = free_port()
        self._stack.start_catcher("old-catcher", self._store, port)
        environment = {
            **base_environment(self._stack.settings),
            "OLD_APP_BROKER": self._broker,
            "OLD_APP_SMTP_PORT": str(port),
        }
        for name in WORKERS:
            command = (
                sys.executable, "-m", "celery", "--app", "reliability.incident.old_app", "worker",
                "--hostname", name, "--concurrency", "2", "--loglevel", "INFO",
            )  # fmt: skip
            self._stack.processes.start(name, command, environment)
        with Celery(broker=self._broker) as application:
            application.conf.broker_transport_options = TRANSPORT_OPTIONS
            for user_id in range(1, USERS + 1):
                application.send_task(TASK, args=[user_id], countdown=DELAY_SECONDS)
        self._due = time.monotonic() + DELAY_SECONDS

    def wait(self, report: Report) -> OldWay:
        """Wait until the broker has nothing left, and count. StackError: it does not end."""
        with redis.Redis.from_url(self._broker) as broker:
            left = self._left(broker)
            while left or time.monotonic() < self._due:
                for name in WORKERS:
                    self._stack.processes.check(name)
                if time.monotonic() > self._due + END_SECONDS:
                    raise StackError(
                        f"The old way still has {left} messages, {END_SECONDS} s after their time."
                    )
                time.sleep(1)
                left = self._left(broker)
        copies = {user_id: count for (_, user_id), count in MailStore(self._store).copies().items()}
        report(f"the old way has sent {sum(copies.values())} mails to {len(copies)} users")
        logs = [self._stack.processes.log(name) for name in WORKERS]
        return OldWay(copies, read_deliveries(logs))

    def _left(self, broker: "redis.Redis") -> int:
        """Count the messages that wait, and those that a worker holds."""
        return int(broker.llen(QUEUE)) + int(broker.hlen(UNACKED))
