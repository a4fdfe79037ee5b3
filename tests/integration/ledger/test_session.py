"""Ledger sessions: whatever the database refuses reaches the caller as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from lifecycle_emails.cli import main
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.session import ledger_session, ledger_transaction
from tests.integration.ledger.gates import HASH, open_gate
from tests.integration.ledger.rows import connect


@pytest.fixture
def stranger(ledger_database: str) -> Iterator[str]:
    """Give the URL of the ledger for a role that may log in, and look at nothing."""
    with connect(ledger_database) as ledger:
        ledger.execute("CREATE ROLE stranger LOGIN PASSWORD 'made-up'")
    yield psycopg.conninfo.make_conninfo(ledger_database, user="stranger", password="made-up")
    with connect(ledger_database) as ledger:
        ledger.execute("DROP OWNED BY stranger")
        ledger.execute("DROP ROLE stranger")


def test_role_without_rights_on_the_ledger_is_told_which_it_lacks(capsys, stranger: str) -> None:
    assert main(["--ledger", stranger, "halt", "--reason", "x"]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("lifecycle: the ledger's database refuses this:")
    assert "permission denied for schema lifecycle" in said
    assert "the role of the connection" in said
    assert "\n" not in said


def test_role_that_may_only_read_is_told_what_it_may_not_write(
    capsys, ledger_database: str, stranger: str
) -> None:
    with connect(ledger_database) as ledger:
        ledger.execute("GRANT USAGE ON SCHEMA lifecycle TO stranger")
        ledger.execute("GRANT SELECT ON ALL TABLES IN SCHEMA lifecycle TO stranger")
    assert main(["--ledger", stranger, "halt", "--reason", "x"]) == 1
    said = capsys.readouterr().err.strip()
    assert "permission denied for table actions" in said
    assert "\n" not in said


def test_refusal_of_the_ledger_within_a_session_is_a_ledger_error_without_the_row(
    ledger_database: str,
) -> None:
    with (
        pytest.raises(LedgerError, match="refuses this: null value in column") as error,
        ledger_session(lambda: psycopg.connect(ledger_database)) as ledger,
    ):
        ledger.execute("INSERT INTO lifecycle.halts (campaign) VALUES ('secret')")
    assert "secret" not in str(error.value)


def test_connection_closed_within_a_session_is_a_ledger_error(ledger_database: str) -> None:
    with (
        pytest.raises(LedgerError, match="lost or timed out; run this again"),
        ledger_session(lambda: psycopg.connect(ledger_database)) as ledger,
    ):
        ledger.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_transaction_waits_for_its_commit_whatever_the_server_is_set_to(ledger_database: str) -> None:
    forgetful = psycopg.conninfo.make_conninfo(ledger_database, options="-c synchronous_commit=off")
    with connect(forgetful) as ledger, ledger_transaction(ledger, lock_timeout=1, statement_timeout=1):
        assert ledger.execute("SHOW synchronous_commit").fetchone() == ("on",)
        # whose machine is gone in the middle of it keeps no locks
        assert ledger.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1min",)


def test_gate_waits_for_its_commit_whatever_the_server_is_set_to(ledger_database: str, ready_ledger) -> None:
    ready_ledger.execute(
        "CREATE TABLE passed_under (setting text);"
        " CREATE FUNCTION note_setting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "     INSERT INTO passed_under VALUES (current_setting('synchronous_commit')); RETURN NULL;"
        " END $$;"
        " CREATE TRIGGER note_setting AFTER UPDATE ON lifecycle.sends FOR EACH ROW EXECUTE FUNCTION note_setting()"
    )
    forgetful = psycopg.conninfo.make_conninfo(ledger_database, options="-c synchronous_commit=off")
    with open_gate(forgetful) as gate:
        assert gate.ask("1", uuid4(), HASH) is Passage.PASSED
    assert ready_ledger.execute("SELECT setting FROM passed_under").fetchall() == [("on",)]
