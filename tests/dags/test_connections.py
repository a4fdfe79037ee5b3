import json
import ssl
from typing import Any

import psycopg
import pytest

from lifecycle_emails.delivery.reply import Verdict
from lifecycle_emails.delivery.smtp_settings import SmtpSettings
from lifecycle_emails.errors import ConfigurationError, SourceError
from lifecycle_emails.operators.connections import ledger_connector, smtp_settings, source_connector
from tests.dags.conftest import MakeConnection


@pytest.fixture
def smtp(make_connection: MakeConnection) -> Any:
    """Give a function that reads an SMTP connection made of these fields and extras."""

    def read(fields: dict[str, Any] | None = None, **extra: Any) -> SmtpSettings:
        connection = {"conn_type": "smtp", "host": "mail.example.com", **(fields or {}), "extra": extra}
        make_connection("lifecycle_smtp", json.dumps(connection))
        return smtp_settings("lifecycle_smtp")

    return read


def test_smtp_settings_default_to_tls_from_the_first_byte(smtp: Any) -> None:
    assert smtp() == SmtpSettings(host="mail.example.com", port=465, security="tls", connect_timeout=30)


def test_smtp_settings_follow_the_hooks_extras(smtp: Any) -> None:
    settings = smtp({"port": 587, "login": "lifecycle", "password": "secret"}, disable_ssl=True, timeout=7)

    assert (settings.port, settings.security, settings.connect_timeout) == (587, "starttls", 7)
    assert (settings.username, settings.password) == ("lifecycle", "secret")
    assert "secret" not in repr(settings)


def test_smtp_settings_without_tls_are_for_a_server_nearby(smtp: Any) -> None:
    settings = smtp(disable_ssl=True, disable_tls=True)

    assert (settings.port, settings.security) == (25, "none")


def test_smtp_settings_have_extras_of_their_own(smtp: Any) -> None:
    settings = smtp(
        {"login": "lifecycle", "password": "secret"},
        disable_ssl=True,
        disable_tls=True,
        auth_without_tls=True,
        command_timeout=5,
        dot_timeout="6",
        local_hostname="sender.example.com",
        ambiguous_after_dot="retry",
    )

    assert (settings.command_timeout, settings.dot_timeout) == (5, 6)
    assert settings.local_hostname == "sender.example.com"
    assert settings.ambiguous_after_dot is Verdict.RETRY


def test_smtp_settings_may_leave_certificates_unchecked(smtp: Any) -> None:
    assert smtp(ssl_context="none").trust().verify_mode is ssl.CERT_NONE
    assert smtp(ssl_context="default").trust().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"ssl_context": "lax"}, "write 'default'"),
        ({"auth_type": "oauth2"}, "only 'basic' is supported"),
        ({"dot_timeout": "soon"}, "Times are seconds"),
        ({"ambiguous_after_dot": "sent by hope"}, "'in_doubt' or 'retry'"),
    ],
)
def test_smtp_settings_refuse_what_cannot_be_done(smtp: Any, extra: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'lifecycle_smtp'.*{message}"):
        smtp(**extra)


def test_missing_connection_is_named_with_the_command_that_adds_it() -> None:
    with pytest.raises(ConfigurationError, match=r"no connection 'nowhere'.*airflow connections add nowhere"):
        smtp_settings("nowhere")
    with pytest.raises(ConfigurationError, match=r"no connection 'nowhere'.*airflow connections add nowhere"):
        ledger_connector("nowhere")


def test_ledger_connector_opens_psycopg_3_connections(
    empty_database: str, make_connection: MakeConnection
) -> None:
    make_connection("lifecycle_ledger", empty_database)
    connect = ledger_connector("lifecycle_ledger")

    with connect() as first, connect() as second:
        assert isinstance(first, psycopg.Connection)
        assert first is not second
        assert first.execute("SELECT 1").fetchone() == (1,)


def test_source_that_cannot_be_reached_is_an_error_of_the_source(make_connection: MakeConnection) -> None:
    make_connection("lifecycle_source", "postgresql://app:secret@127.0.0.1:1/app")

    with pytest.raises(SourceError, match="through the Airflow connection 'lifecycle_source'") as error:
        source_connector("lifecycle_source")()

    assert "secret" not in str(error.value)
