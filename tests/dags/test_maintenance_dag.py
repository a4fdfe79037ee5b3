"""The maintenance DAG: it tells what nobody was told, tries stopped mail servers, and is red when it could not."""

import smtplib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.cohort import cohort_date_of
from lifecycle_emails.ledger.alerts import create_alert, undelivered_alerts
from lifecycle_emails.ledger.provider import stop_provider, stopped_providers
from lifecycle_emails.message_id import message_id
from local_stack.catcher import Catcher
from local_stack.mail_store import Search
from tests.dags.conftest import MakeConnection, Project, RunDag, smtp_connection, states_of
from tests.integration.ledger.rows import add_cohort, add_sends, let_time_pass, states

CAMPAIGN = "day4_follow_up"
NOTIFIER = (
    'SmtpNotifier(smtp_conn_id="lifecycle_smtp", from_email="alerts@example.com", to="team@example.com", '
    'subject="{{ alert.subject }}", html_content="{{ alert.html }}")'
)


@pytest.fixture
def cohort_date(project: Project) -> date:
    return cohort_date_of(load_campaign(project.include.path, CAMPAIGN), datetime.now(UTC))


class Maintenance:
    def __init__(self, project: Project, run_dag: RunDag, catcher: Catcher) -> None:
        self._run_dag, self._catcher = run_dag, catcher
        project.write_dag(
            "lifecycle_maintenance",
            head=(
                '"""An Airflow DAG."""\n\n'
                "from airflow.providers.smtp.notifications.smtp import SmtpNotifier\n"
            ),
            call=f'lifecycle_maintenance_dag(on_alert=[{NOTIFIER}], default_args={{"retries": 0}})',
        )

    def run(self) -> dict[str, str]:
        return states_of(self._run_dag("lifecycle_maintenance"))

    def told(self) -> list[str]:
        """List the subjects of the mails to the team, oldest first."""
        return [mail.subject for mail in reversed(self._catcher.store.mails(Search(alerts_only=True)))]


@pytest.fixture
def maintenance(project: Project, run_dag: RunDag, ledger: Any, source: Any, catcher: Catcher) -> Maintenance:
    return Maintenance(project, run_dag, catcher)


def record_capped(ledger: Any, cohort_date: date) -> None:
    facts = {
        "users": 1,
        "rules": [{"rule": "weekly", "max_sends": 3, "window_seconds": 604800, "users": 1}],
        "on_cap": "defer",
        "user_ids": ["17"],
        "sends_in_window": {},
        "cohort_dates": [cohort_date.isoformat()],
    }
    create_alert(
        ledger, "limit_exceeded", CAMPAIGN, cohort_date, run="", facts=facts, callbacks=("1 SmtpNotifier",)
    )


def test_maintenance_with_nothing_to_do_is_green(maintenance: Maintenance) -> None:
    assert maintenance.run() == {
        "maintain": "success",
        "probe_providers": "skipped",
        "deliver_alerts": "skipped",
    }
    assert maintenance.told() == []


def test_mail_whose_answer_never_came_is_told_once(
    maintenance: Maintenance, ledger: Any, cohort_date: date
) -> None:
    add_cohort(ledger, CAMPAIGN, cohort_date)
    add_sends(ledger, ["17"], CAMPAIGN, cohort_date, state="sending")
    let_time_pass(ledger, timedelta(minutes=20))

    assert maintenance.run()["deliver_alerts"] == "success"
    assert states(ledger, CAMPAIGN) == {"17": "in_doubt"}
    assert maintenance.told() == [f"In doubt: 1 user of {CAMPAIGN}"]
    assert undelivered_alerts(ledger, None) == []

    assert maintenance.run()["deliver_alerts"] == "skipped"
    assert len(maintenance.told()) == 1


def test_mail_in_doubt_that_evidence_knows_is_settled_and_not_told(
    project: Project, run_dag: RunDag, ledger: Any, source: Any, catcher: Catcher, cohort_date: date
) -> None:
    project.write_dag(
        "lifecycle_maintenance",
        head=(
            f'"""An Airflow DAG."""\n\nfrom local_stack.catcher_evidence import CaughtMails\n\nPATH = {str(catcher.store.path)!r}\n'
        ),
        call="lifecycle_maintenance_dag(on_alert=[print], evidence=[CaughtMails(PATH)])",
    )
    add_cohort(ledger, CAMPAIGN, cohort_date)
    add_sends(ledger, ["17", "18"], CAMPAIGN, cohort_date, state="sending")
    let_time_pass(ledger, timedelta(minutes=20))
    [(namespace,)] = ledger.execute("SELECT message_id_namespace FROM lifecycle.installation").fetchall()
    with smtplib.SMTP("127.0.0.1", catcher.port) as client:
        client.sendmail(
            "hello@example.com",
            "user17@example.com",
            f"Message-ID: {message_id(namespace, CAMPAIGN, '17', 'example.com')}\r\n\r\nReference: {CAMPAIGN}/17\r\n",
        )

    states_of(run_dag("lifecycle_maintenance"))

    assert states(ledger, CAMPAIGN) == {"17": "sent", "18": "in_doubt"}
    [alert] = ledger.execute("SELECT facts FROM lifecycle.alerts").fetchall()
    assert alert[0]["user_ids"] == ["18"]


def test_witness_that_cannot_be_read_is_red_and_keeps_no_doubt_from_being_told(
    maintenance: Maintenance,
    ledger: Any,
    cohort_date: date,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "witness.json").write_text("{}")
    monkeypatch.setenv("LIFECYCLE_WITNESS", str(tmp_path / "witness.json"))
    add_cohort(ledger, CAMPAIGN, cohort_date)
    add_sends(ledger, ["17"], CAMPAIGN, cohort_date, state="sending")
    let_time_pass(ledger, timedelta(minutes=20))

    assert maintenance.run()["maintain"] == "failed"

    assert maintenance.told() == [f"In doubt: 1 user of {CAMPAIGN}"]


def test_alert_of_a_campaign_is_taken_over_only_when_it_is_overdue(
    maintenance: Maintenance, ledger: Any, cohort_date: date
) -> None:
    record_capped(ledger, cohort_date)

    assert maintenance.run()["deliver_alerts"] == "skipped"

    let_time_pass(ledger, timedelta(hours=1))

    assert maintenance.run()["deliver_alerts"] == "success"
    assert maintenance.told() == [f"Frequency cap reached: 1 user in {CAMPAIGN}"]
    assert undelivered_alerts(ledger, None) == []


def test_alert_that_cannot_be_delivered_stays_due_and_the_run_is_red(
    maintenance: Maintenance, ledger: Any, catcher: Catcher, make_connection: MakeConnection
) -> None:
    stop_provider(ledger, "lifecycle_smtp", "twenty refusals in a row")
    make_connection("lifecycle_smtp", smtp_connection(1))

    assert maintenance.run()["deliver_alerts"] == "failed"
    assert len(undelivered_alerts(ledger, None)) == 1

    make_connection("lifecycle_smtp", smtp_connection(catcher.port))

    assert maintenance.run()["deliver_alerts"] == "success"
    assert maintenance.told() == ["Sending stopped: lifecycle_smtp refuses too much"]


def test_stopped_mail_server_is_tried_with_one_mail_and_used_again(
    maintenance: Maintenance, ledger: Any, source: Any, catcher: Catcher, cohort_date: date
) -> None:
    for user_id in ("17", "18"):
        source.execute(
            "INSERT INTO users (user_id, email, full_name, created_at) VALUES (%s, %s, 'User', %s)",
            (user_id, f"user{user_id}@example.com", datetime.combine(cohort_date, datetime.min.time(), UTC)),
        )
    add_cohort(ledger, CAMPAIGN, cohort_date)
    add_sends(ledger, ["17", "18"], CAMPAIGN, cohort_date, state="ready")
    stop_provider(ledger, "lifecycle_smtp", "twenty refusals in a row")

    assert maintenance.run()["probe_providers"] == "success"
    assert stopped_providers(ledger) == []
    assert sorted(states(ledger, CAMPAIGN).values()) == ["ready", "sent"]
    assert list(catcher.store.copies().values()) == [1]


def test_maintenance_that_failed_is_red_but_still_tells(
    maintenance: Maintenance, ledger: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    stop_provider(ledger, "lifecycle_smtp", "twenty refusals in a row")
    ledger.execute(
        "ALTER TABLE lifecycle.send_events RENAME COLUMN alert_id TO alert"
    )  # maintain cannot work

    assert maintenance.run() == {
        "maintain": "failed",
        "probe_providers": "success",
        "deliver_alerts": "failed",
    }
    assert maintenance.told() == ["Sending stopped: lifecycle_smtp refuses too much"]
    assert "maintain failed: the log says why" in capfd.readouterr().out


def test_campaign_with_a_mistake_is_left_out_and_the_others_are_looked_after(
    maintenance: Maintenance,
    project: Project,
    ledger: Any,
    cohort_date: date,
    capfd: pytest.CaptureFixture[str],
) -> None:
    project.include.write("campaigns/broken.yaml", "id: broken\n")
    add_cohort(ledger, CAMPAIGN, cohort_date - timedelta(days=3))

    assert maintenance.run()["maintain"] == "success"
    assert "Campaign broken is left out" in capfd.readouterr().out
    assert any(subject.startswith("Never planned:") for subject in maintenance.told())
