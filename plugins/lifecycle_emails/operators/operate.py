"""Carry out one order of a person, given in the form of the operators' DAG and attributed to that person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from lifecycle_emails.campaign import campaign_ids, load_campaign
from lifecycle_emails.errors import ConfigurationError, LifecycleError
from lifecycle_emails.operators.campaign_operator import open_ledger
from lifecycle_emails.operators.sending_tools import sending_tools
from lifecycle_emails.order import Action, Order

if TYPE_CHECKING:
    from lifecycle_emails.ledger.actions import Actor, Done

# What imports psycopg is imported where it is used: every parse of a DAG file imports this module.
# ruff: noqa: PLC0415


class OperateOperator(BaseOperator):
    """Do what the run's parameters order, once for this run, in the name of the user who triggered it.

    The order and what came of it are written into the ledger's audit, in the transaction of the act. Cleared
    or retried, the task says what came of it and repeats nothing. An order that makes no sense, or that the
    ledger forbids, fails at once and changes nothing. No parameter holds an address.

    Returns action, actor, result, and whether the run had done it before.

    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("include_dir", "ledger_conn_id")
    ui_color = "#f6e3e3"

    def __init__(self, *, include_dir: str, ledger_conn_id: str = "lifecycle_ledger", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.include_dir = include_dir
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it, and say what came of it."""
        try:
            order, actor = read_order(context), read_actor(context)
        except LifecycleError as mistake:
            raise AirflowFailException(str(mistake)) from None
        done = self._send_test(order, actor) if order.action is Action.SEND_TEST else self._act(order, actor)
        if done.before:
            self.log.info("This run has done it before; nothing is repeated. What came of it then:")
        self.log.info("%s, by %s (%s): %s", order.action, actor.name, order.reason, done.result)
        return {
            "action": str(order.action),
            "actor": actor.name,
            "result": done.result,
            "done_before": done.before,
        }

    def _act(self, order: Order, actor: Actor) -> Done:
        from lifecycle_emails.operation import carry_out

        # a ledger that is out of reach is tried again; what it refuses is not
        with open_ledger(self.ledger_conn_id) as ledger:
            try:
                return carry_out(ledger, order, actor, campaign_ids(Path(self.include_dir)))
            except LifecycleError as refused:
                raise AirflowFailException(str(refused)) from None

    def _send_test(self, order: Order, actor: Actor) -> Done:
        from lifecycle_emails.delivery.test_mail import send_test

        include_dir = Path(self.include_dir)
        campaigns = campaign_ids(include_dir)
        try:
            order.check(campaigns)
            tools = sending_tools(
                load_campaign(include_dir, order.campaign or ""), include_dir, self.ledger_conn_id
            )
            address = address_of_connection(order.recipient or "")
            return send_test(tools, order, address, actor, campaigns, now=datetime.now(UTC))
        except LifecycleError as refused:
            raise AirflowFailException(str(refused)) from None


def read_order(context: Context) -> Order:
    """Read the order from the run's parameters.

    :raises ConfigurationError: there is a parameter that the form does not have, or a value of another type.
    """
    params: Mapping[str, Any] = context["params"]
    asked = context["dag_run"].conf or {}
    if unknown := sorted(set(asked) - set(context["dag"].params)):
        raise ConfigurationError(f"there is no parameter {', '.join(unknown)}; nothing was changed")
    try:
        action = Action(params["action"])
        return Order(
            action=action,
            reason=params["reason"],
            campaign=params["campaign"] or None,
            user_ids=tuple(user_id for user_id in params["user_ids"] or () if user_id.strip()),
            cohort_from=_date(params["cohort_from"]),
            cohort_to=_date(params["cohort_to"]),
            everybody=bool(params["everybody"]),
            days=params["days"],
            approved_users=params["approved_users"],
            earlier_extensions=params["earlier_extensions"] or 0,
            recipient=params["recipient"] if action is Action.SEND_TEST else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the parameters of this run cannot be read ({type(error).__name__}); nothing was changed. Use"
            " the form of the DAG"
        ) from None


def read_actor(context: Context) -> Actor:
    """Name the user who triggered the run, as Airflow knows them, and the run.

    :raises ConfigurationError: no person has triggered the run.
    """
    from lifecycle_emails.ledger.actions import Actor

    dag_run = context["dag_run"]
    name = (dag_run.triggering_user_name or "").strip()
    if not name:
        raise ConfigurationError(
            "Airflow names no user who triggered this run, and every action is somebody's; nothing was"
            " changed. Trigger the DAG by hand, or use the command lifecycle"
        )
    return Actor(name, "airflow", f"{dag_run.dag_id} {dag_run.run_id}")


def address_of_connection(conn_id: str) -> str:
    """Read the address of a tester: the login of an Airflow connection, so that it stands in no run.

    :raises ConfigurationError: Airflow has no such connection, or it has no login.
    """
    try:
        login = BaseHook.get_connection(conn_id).login
    except AirflowNotFoundException:
        login = None
    if not login:
        raise ConfigurationError(
            f"Airflow has no connection {conn_id!r} with an address as its login; nothing was sent. Make one"
            " of type generic, its login the address that tests go to"
        )
    return login


def _date(written: str | None) -> date | None:
    return date.fromisoformat(written) if written else None
