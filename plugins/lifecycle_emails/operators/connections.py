"""Airflow connections as the core wants them: functions that open psycopg connections, and SMTP settings.

The only place where the package asks Airflow for credentials. It sends no SQL and speaks no SMTP.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from lifecycle_emails.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    import psycopg
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    from lifecycle_emails.delivery.smtp_session import SmtpSettings

Connect = Callable[[], "psycopg.Connection[tuple[Any, ...]]"]

# Hooks, psycopg and the SMTP session are imported where they are used: every parse of a DAG file imports this
# module, and none needs them.
# ruff: noqa: PLC0415


def ledger_connector(conn_id: str) -> Connect:
    """Give a function that opens a connection to the ledger; it may be called by any thread.

    Airflow is asked for the connection now, once. That the server cannot be reached is the core's to say.

    :raises ConfigurationError: Airflow has no such connection.
    """
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    hook = PostgresHook(postgres_conn_id=conn_id)
    with _missing_connection_explained(conn_id, "postgresql://USER:PASSWORD@HOST:5432/DATABASE"):
        _ = hook.connection
    # with Airflow 3.3 the hook gives a psycopg 3 connection; its annotation names psycopg 2 as well
    return cast("Connect", hook.get_conn)


def source_connector(conn_id: str) -> Connect:
    """Give a function that opens a connection to the source of users; it may be called by any thread.

    Airflow is asked for the connection now, once. The function raises SourceError when the server is out of
    reach.

    :raises ConfigurationError: Airflow has no such connection.
    """
    import psycopg

    connect = ledger_connector(conn_id)

    def connect_to_source() -> "psycopg.Connection[tuple[Any, ...]]":
        try:
            return connect()
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            raise SourceError(
                f"The database of the users cannot be reached through the Airflow connection {conn_id!r};"
                f" nothing was changed. Check the connection and that the server runs. It said: {reason}"
            ) from None

    return connect_to_source


def smtp_settings(conn_id: str) -> "SmtpSettings":
    """Read an Airflow SMTP connection: host, port, login, and the extras that SmtpHook knows.

    ``disable_ssl`` and ``disable_tls`` decide as in SmtpHook: TLS from the first byte unless ``disable_ssl``,
    then STARTTLS unless ``disable_tls``. Further extras, all optional: ``command_timeout`` and
    ``dot_timeout`` (seconds), ``local_hostname``, ``auth_without_tls`` (bool) and ``ambiguous_after_dot``
    (``in_doubt`` or ``retry``).

    :raises ConfigurationError: Airflow has no such connection, or it says something that cannot be done.
    :raises DeliveryError: its settings contradict each other.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    from lifecycle_emails.delivery.reply import Verdict
    from lifecycle_emails.delivery.smtp_session import SmtpSettings

    hook = SmtpHook(smtp_conn_id=conn_id)
    with _missing_connection_explained(conn_id, "smtp://USER:PASSWORD@HOST:587?disable_ssl=true"):
        hook.smtp_connection = hook.get_connection(conn_id)
    extra = hook.conn.extra_dejson
    if hook.auth_type != "basic":
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} asks for auth_type {hook.auth_type!r}; only 'basic' is"
            " supported. Give it a user name and a password."
        )
    with _extras_explained(conn_id):
        return SmtpSettings(
            host=hook.host,
            port=hook.port or (465 if hook.use_ssl else 25),
            username=hook.smtp_user or None,
            password=hook.smtp_password or None,
            security="tls" if hook.use_ssl else "starttls" if hook.smtp_starttls else "none",
            connect_timeout=float(hook.timeout),
            command_timeout=float(extra.get("command_timeout", 300)),
            dot_timeout=float(extra.get("dot_timeout", 600)),
            local_hostname=extra.get("local_hostname"),
            auth_without_tls=_truth(extra.get("auth_without_tls", False)),
            ambiguous_after_dot=Verdict(extra.get("ambiguous_after_dot", "in_doubt")),
            tls_context=_tls_context(conn_id, hook),
        )


def _tls_context(conn_id: str, hook: "SmtpHook") -> ssl.SSLContext | None:
    if hook.ssl_context in {None, "default"}:
        return None
    if hook.ssl_context != "none":
        raise ConfigurationError(
            f"The extra ssl_context of the Airflow connection {conn_id!r} is {hook.ssl_context!r}; write"
            " 'default' (certificates are checked) or 'none' (they are not)."
        )
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    return unchecked


def _truth(written: Any) -> bool:
    return written if isinstance(written, bool) else str(written).lower() in {"1", "true", "yes"}


@contextmanager
def _missing_connection_explained(conn_id: str, example: str) -> Iterator[None]:
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        yield
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"Airflow has no connection {conn_id!r}. Add it under Admin, Connections, or with: "
            f"airflow connections add {conn_id} --conn-uri '{example}'"
        ) from None


@contextmanager
def _extras_explained(conn_id: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"An extra of the Airflow connection {conn_id!r} has no usable value: {error}. Times are seconds,"
            " ambiguous_after_dot is 'in_doubt' or 'retry'."
        ) from None
