import logging
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lifecycle_emails.ledger.alerts import create_alert, undelivered_alerts
from lifecycle_emails.operators.alert import deliver
from tests.dags.conftest import Project, RunDag, states_of

DAG_FILE = '''
"""An Airflow DAG that only alerts."""

from airflow.sdk import DAG, BaseNotifier
from lifecycle_emails.operators import AlertOperator

class Note(BaseNotifier):
    template_fields = ("text",)

    def __init__(self, text, file, **kwargs):
        super().__init__(**kwargs)
        self.text, self.file = text, file

    def notify(self, context):
        with open(self.file, "a") as notes:
            print(self.text, file=notes)

class Fails(Note):
    def notify(self, context):
        super().notify(context)
        raise RuntimeError("no chat for team@example.com")

def call(context):
    Note(context["alert"]["id"], "{notes}").notify(context)

with DAG("alerts", default_args={{"retries": 0}}):
    AlertOperator(task_id="alert", campaign_id="welcome", callbacks=[{callbacks}])
'''


class Alerts:
    def __init__(self, project: Project, run_dag: RunDag, notes: Path) -> None:
        self._project, self._run_dag, self._notes = project, run_dag, notes

    def run(self, *callbacks: str) -> str:
        """Run a DAG that alerts through these callbacks, and return the state of its task."""
        text = DAG_FILE.format(notes=self._notes, callbacks=", ".join(callbacks))
        (self._project.dags / "alerts.py").write_text(text.lstrip())
        return states_of(self._run_dag("alerts"))["alert"]

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []


@pytest.fixture
def alerts(project: Project, run_dag: RunDag, tmp_path: Path) -> Alerts:
    return Alerts(project, run_dag, tmp_path / "notes.txt")


def record_alert(
    ledger: Any, *callbacks: str, kind: str = "limit_exceeded", campaign: str = "welcome"
) -> str:
    facts = {
        "users": 2,
        "rules": [{"rule": "weekly", "max_sends": 3, "window_seconds": 604800, "users": 2}],
        "on_cap": "defer",
        "user_ids": ["17", "42"],
        "sends_in_window": {"17": [], "42": []},
        "cohort_dates": ["2026-05-01"],
    }
    return create_alert(
        ledger, kind, campaign, date(2026, 5, 1), run="welcome run_1", facts=facts, callbacks=callbacks
    )


def test_alert_reaches_notifiers_and_functions(ledger: Any, alerts: Alerts, tmp_path: Path) -> None:
    alert_id = record_alert(ledger, "1 Note", "2 call")

    state = alerts.run(f'Note("{{{{ alert.subject }}}}", "{tmp_path}/notes.txt")', "call")

    assert state == "success"
    assert alerts.notes == ["Frequency cap reached: 2 users in welcome", alert_id]
    assert undelivered_alerts(ledger, None) == []


def test_alert_operator_is_skipped_when_there_is_nothing_to_tell(ledger: Any, alerts: Alerts) -> None:
    record_alert(ledger, "1 call", campaign="another")
    record_alert(ledger, "maintenance", kind="in_doubt")

    assert alerts.run("call") == "skipped"
    assert alerts.notes == []


def test_notifier_is_used_afresh_for_every_alert(ledger: Any, alerts: Alerts, tmp_path: Path) -> None:
    ids = [record_alert(ledger, "1 Note"), record_alert(ledger, "1 Note")]

    alerts.run(f'Note("{{{{ alert.id }}}}", "{tmp_path}/notes.txt")')

    assert sorted(alerts.notes) == sorted(ids)


def test_failing_callback_is_tried_again_alone(
    ledger: Any, alerts: Alerts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alert_id = record_alert(ledger, "1 Fails", "2 call")

    state = alerts.run(f'Fails("tried", "{tmp_path}/notes.txt")', "call")

    assert state == "failed"
    assert alerts.notes == ["tried", alert_id]
    assert "@example.com" not in capfd.readouterr().out
    deliveries = ledger.execute(
        "SELECT callback, attempts, delivered_at IS NOT NULL, error FROM lifecycle.alert_deliveries ORDER"
        " BY 1"
    ).fetchall()
    assert deliveries == [("1 Fails", 1, False, "RuntimeError"), ("2 call", 1, True, None)]

    alerts.run(f'Fails("tried", "{tmp_path}/notes.txt")', "call")

    assert alerts.notes == ["tried", alert_id, "tried"]


class Delivering:
    """An operator whose callbacks are called without Airflow."""

    def __init__(self, **callbacks: Any) -> None:
        self.keys = tuple(callbacks)
        self.callbacks = tuple(callbacks.values())
        self.log = logging.getLogger(__name__)


class Hangs(BaseException):
    """What a time-out of the task raises in a callback that hangs."""


def test_hanging_callback_keeps_no_other_waiting_for_ever(ledger: Any) -> None:
    told = []

    def hang(_: Any) -> None:
        raise Hangs

    operator: Any = Delivering(hangs=hang, works=lambda context: told.append(context["alert"]["id"]))
    ids = {record_alert(ledger, *operator.keys) for _ in range(3)}

    for _ in range(4):  # tries of the task
        with pytest.raises(Hangs):
            deliver(operator, {}, ledger, undelivered_alerts(ledger, None), operator.keys)

    assert sorted(told) == sorted(ids)
