"""Calling the callbacks that a DAG file sets: Airflow notifiers, and plain functions of the context.

Knows how to call one callback with one alert. Which alerts are due, and to whom, is the ledger's to know.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from airflow.sdk import BaseNotifier, Context, conf

if TYPE_CHECKING:
    from lifecycle_emails.ledger.alerts import Alert

AlertCallback = Callable[[Any], Any]
"""An Airflow notifier, or a function of the task's context, in which ``alert`` is the alert as a dict."""


def callback_keys(callbacks: Sequence[AlertCallback]) -> tuple[str, ...]:
    """Give each callback the key by which the ledger records its deliveries: position and name.

    >>> callback_keys([print])
    ('1 print',)
    """
    return tuple(f"{position} {_name(callback)}" for position, callback in enumerate(callbacks, start=1))


def call_with_alert(callback: AlertCallback, context: Mapping[str, Any], alert: Mapping[str, Any]) -> None:
    """Call a callback with the task's context and ``alert``; what it raises is the caller's to handle.

    A notifier renders its templates in place, so a copy of it is used: the original would repeat its first
    message for ever. It is rendered and notified here, since calling it would log the error of a notifier
    that fails as it is, with the addresses in it.
    """
    scope = {**context, "alert": dict(alert)}
    if not isinstance(callback, BaseNotifier):
        callback(scope)
        return
    notifier = deepcopy(callback)
    fields = {name: getattr(notifier, name) for name in notifier.template_fields}
    notifier_scope = cast("Context", {**fields, **scope})
    notifier.render_template_fields(notifier_scope)
    notifier.notify(notifier_scope)


def _name(callback: AlertCallback) -> str:
    while isinstance(callback, partial):
        callback = callback.func
    return getattr(callback, "__name__", type(callback).__name__)


def as_context(alert: "Alert") -> dict[str, Any]:
    """Give an alert as callbacks see it: its words, and the facts they were made from.

    Keys: ``id``, ``kind``, ``campaign``, ``cohort_date``, ``run``, ``created_at``, ``facts``, and in words
    ``subject``, ``text`` and ``html``.
    """
    from lifecycle_emails.alert_text import alert_text  # noqa: PLC0415  (psycopg comes with it)

    words = alert_text(alert, where=_link_to_run(alert.run))
    return {
        "id": alert.alert_id,
        "kind": alert.kind,
        "campaign": alert.campaign,
        "cohort_date": alert.cohort_date,
        "run": alert.run,
        "created_at": alert.created_at,
        "facts": alert.facts,
        "subject": words.subject,
        "text": words.text,
        "html": words.html,
    }


def _link_to_run(run: str) -> str:
    """Give the address in Airflow's UI of a run as RunRequest names it; nothing for what is no run."""
    dag_id, _, run_id = run.partition(" ")
    if not run_id:
        return ""
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id)}"
