"""Deliver the alerts that the ledger holds to the callbacks set in a DAG file."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context, TriggerRule
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lifecycle_emails.address import scrub_addresses
from lifecycle_emails.errors import DeliveryError
from lifecycle_emails.operators.alert_callbacks import (
    AlertCallback,
    as_context,
    call_with_alert,
    callback_keys,
)
from lifecycle_emails.operators.campaign_operator import failed_tasks, mistakes_fail_at_once, open_ledger

if TYPE_CHECKING:
    from lifecycle_emails.ledger.alerts import Alert
    from lifecycle_emails.ledger.session import LedgerConnection

# What imports psycopg is imported where it is used: every parse of a DAG file imports this module.
# ruff: noqa: PLC0415

NOTHING_TO_TELL = "There is nothing to tell anybody."


class AlertOperator(BaseOperator):
    """Tell the callbacks of a campaign who would have exceeded the frequency cap.

    Delivers every such alert of the campaign that a callback has not taken yet, also those of earlier runs.
    Each attempt is recorded before the callback is called, and what was tried least comes first, so that one
    callback that hangs keeps no other waiting for ever. A callback that fails is recorded, the others are
    still called, and the task fails in the end, to be retried; a callback that has taken an alert is not
    called with it again. Ends as skipped when there is nothing to say.

    Returns the ids of the alerts delivered.

    :param callbacks: Airflow notifiers, and functions of the context; both find the alert in it as ``alert``
    :param campaign_id: the campaign's id (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "ledger_conn_id")
    ui_color = "#f9e4e4"

    def __init__(
        self,
        *,
        callbacks: Sequence[AlertCallback],
        campaign_id: str,
        ledger_conn_id: str = "lifecycle_ledger",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.callbacks = callbacks
        self.campaign_id = campaign_id
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> list[str]:
        """Deliver what is due."""
        from lifecycle_emails.ledger.alerts import undelivered_alerts

        with mistakes_fail_at_once(), open_ledger(self.ledger_conn_id) as ledger:
            # the campaign's other alerts are for the maintenance DAG's callbacks
            alerts = [
                alert
                for alert in undelivered_alerts(ledger, self.campaign_id)
                if alert.kind == "limit_exceeded"
            ]
            delivered = deliver(self, context, ledger, alerts, callback_keys(self.callbacks))
        if not delivered:
            raise AirflowSkipException(NOTHING_TO_TELL)
        return delivered


class MaintenanceAlertOperator(BaseOperator):
    """Tell the maintenance DAG's callbacks what nobody was told yet.

    That is: mails in doubt, missing cohorts, stopped mail servers, and alerts of campaigns that their own
    callbacks have not taken for ``patience``. Delivers as AlertOperator does. Once all callbacks have taken
    an alert it is due to nobody any more.

    Runs whatever became of the tasks before it, and fails when one of them failed.

    Returns the ids of the alerts delivered.

    :param callbacks: Airflow notifiers, and functions of the context; both find the alert in it as ``alert``
    :param patience: how old an alert of a campaign must be before it is taken over from the campaign's
        callbacks
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("ledger_conn_id",)
    ui_color = "#f9e4e4"

    def __init__(
        self,
        *,
        callbacks: Sequence[AlertCallback],
        patience: timedelta = timedelta(minutes=30),
        ledger_conn_id: str = "lifecycle_ledger",
        trigger_rule: str = TriggerRule.ALL_DONE,
        **kwargs: Any,
    ) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)
        self.callbacks = callbacks
        self.patience = patience
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> list[str]:
        """Deliver what is due."""
        from lifecycle_emails.ledger.alerts import callbacks_still_due, mark_escalated, undelivered_alerts

        keys = tuple(f"maintenance {key}" for key in callback_keys(self.callbacks))
        with mistakes_fail_at_once(), open_ledger(self.ledger_conn_id) as ledger:
            overdue = {alert.alert_id for alert in undelivered_alerts(ledger, None, older_than=self.patience)}
            alerts = [
                alert
                for alert in undelivered_alerts(ledger, None)
                if alert.kind != "limit_exceeded" or alert.alert_id in overdue
            ]
            try:
                delivered = deliver(self, context, ledger, alerts, keys)
            finally:
                for alert in alerts:
                    if keys and not callbacks_still_due(ledger, alert.alert_id, keys):
                        mark_escalated(ledger, alert.alert_id)
        if failed := list(failed_tasks(context)):
            raise AirflowFailException(" ".join(failed))
        if not delivered:
            raise AirflowSkipException(NOTHING_TO_TELL)
        return delivered


def deliver(
    operator: AlertOperator | MaintenanceAlertOperator,
    context: Context,
    ledger: LedgerConnection,
    alerts: Sequence[Alert],
    keys: Sequence[str],
) -> list[str]:
    """Deliver alerts to those of an operator's callbacks that have not taken them.

    :param keys: keys of the callbacks in the ledger, in the operator's order.
    :return: ids of the alerts delivered.
    :raises DeliveryError: a callback failed; all others were called.
    """
    from lifecycle_emails.ledger.alerts import record_attempt, record_delivery, record_failure

    callbacks = dict(zip(keys, operator.callbacks, strict=True))
    delivered, failed = set(), []
    for alert, key in _least_tried_first(ledger, alerts, keys):
        record_attempt(ledger, alert.alert_id, key)
        try:
            call_with_alert(callbacks[key], context, as_context(alert))
        except Exception as error:  # noqa: BLE001  (whatever it is, the next callback is called)
            record_failure(ledger, alert.alert_id, key, type(error).__name__)
            trace = "".join(traceback.format_exception(error))
            operator.log.error("%s", scrub_addresses(trace))  # noqa: TRY400  (without addresses)
            failed.append(f"{key} failed with {type(error).__name__} on alert {alert.alert_id}")
        else:
            record_delivery(ledger, alert.alert_id, key)
            operator.log.info("Alert %s delivered through %s.", alert.alert_id, key)
            delivered.add(alert.alert_id)
    if failed:
        raise DeliveryError(
            f"{'; '.join(failed)}. The log above says why. Mend the callback; the alert is tried again by a"
            " retry, the campaign's next run and the maintenance DAG."
        )
    return sorted(delivered)


def _least_tried_first(
    ledger: LedgerConnection, alerts: Sequence[Alert], keys: Sequence[str]
) -> Iterator[tuple[Alert, str]]:
    """Yield what is still due: of each alert the callback tried least, then of each the next one.

    An alert with more callbacks due comes before one with fewer: where one callback hangs until the task is
    killed, every try of the task delivers at least one alert to the others.
    """
    from lifecycle_emails.ledger.alerts import callbacks_still_due

    due = [(alert, callbacks_still_due(ledger, alert.alert_id, keys)) for alert in alerts]
    due.sort(key=lambda pair: len(pair[1]), reverse=True)
    for turn in range(len(keys)):
        for alert, callbacks in due:
            if turn < len(callbacks):
                yield alert, callbacks[turn]
