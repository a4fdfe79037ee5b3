"""Alerts in the ledger: due until every callback of theirs has confirmed, least tried callbacks first."""

from __future__ import annotations

from datetime import timedelta

from lifecycle_emails.ledger.alerts import (
    callbacks_still_due,
    create_alert,
    mark_escalated,
    record_attempt,
    record_delivery,
    record_failure,
    undelivered_alerts,
)
from tests.integration.ledger.rows import connect, let_time_pass

CALLBACKS = ("1 SmtpNotifier", "2 page_someone")


def due(ledger, **options) -> list[str]:
    return [alert.alert_id for alert in undelivered_alerts(ledger, "day4_follow_up", **options)]


def test_alert_is_due_until_every_callback_confirmed(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        alert = create_alert(
            ledger, "limit_exceeded", "day4_follow_up", None, run="r", facts={}, callbacks=CALLBACKS
        )
        for callback in CALLBACKS:
            assert due(ledger) == [alert]
            record_attempt(ledger, alert, callback)
            assert due(ledger) == [alert]
            record_delivery(ledger, alert, callback)
        assert due(ledger) == []


def test_failed_callback_stays_due_and_comes_after_the_untried(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        alert = create_alert(
            ledger, "limit_exceeded", "day4_follow_up", None, run="r", facts={}, callbacks=CALLBACKS
        )
        assert callbacks_still_due(ledger, alert, CALLBACKS) == list(CALLBACKS)
        record_attempt(ledger, alert, CALLBACKS[0])
        record_failure(ledger, alert, CALLBACKS[0], "ConnectionRefusedError")
        assert callbacks_still_due(ledger, alert, CALLBACKS) == [CALLBACKS[1], CALLBACKS[0]]
        record_attempt(ledger, alert, CALLBACKS[1])
        record_delivery(ledger, alert, CALLBACKS[1])
        assert callbacks_still_due(ledger, alert, CALLBACKS) == [CALLBACKS[0]]
        rows = ledger.execute(
            "SELECT callback, attempts, error FROM lifecycle.alert_deliveries ORDER BY 1"
        ).fetchall()
    assert rows == [(CALLBACKS[0], 1, "ConnectionRefusedError"), (CALLBACKS[1], 1, None)]


def test_alert_without_callbacks_has_no_recipient_and_is_never_due(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        create_alert(ledger, "limit_exceeded", "day4_follow_up", None, run="r", facts={}, callbacks=())
        assert due(ledger) == []


def test_maintenance_takes_over_what_is_old_enough(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        alert = create_alert(
            ledger, "limit_exceeded", "day4_follow_up", None, run="r", facts={}, callbacks=CALLBACKS
        )
        assert due(ledger, older_than=timedelta(minutes=30)) == []
        let_time_pass(ledger, timedelta(minutes=31))
        assert due(ledger, older_than=timedelta(minutes=30)) == [alert]
        mark_escalated(ledger, alert)
        assert due(ledger) == []
