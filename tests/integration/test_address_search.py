"""The search for addresses finds what is planted: in a ledger, in Airflow's kind of database, in files, in what is said."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import psycopg

from lifecycle_emails.address import address_hash
from lifecycle_emails.errors import LedgerError
from tests.address_search import (
    Listener,
    addresses_in,
    addresses_in_files,
    addresses_in_postgres,
    addresses_in_sqlite,
)

ADDRESS = "Ada.Example+mail@Example.org"


def test_address_of_a_person_is_found_and_the_teams_own_is_not() -> None:
    assert addresses_in(f"550 <{ADDRESS}> is unknown, says team@example.com") == {ADDRESS}
    assert addresses_in("someone at example.com, <0f3a@mail.example.net>") == set()


def test_address_planted_in_a_ledger_is_found(postgres_server, ledger_template: str) -> None:
    postgres_server.create_database("planted", template=ledger_template)
    with psycopg.connect(postgres_server.url("planted"), autocommit=True) as ledger:
        ledger.execute(
            "INSERT INTO lifecycle.suppressions (address_hash, reason, suppressed_by) VALUES (%s, %s, 'ada')",
            (address_hash(b"key", ADDRESS), f"{ADDRESS} asked for it"),
        )
        ledger.execute(
            "INSERT INTO lifecycle.alerts (kind, run, facts, callbacks)"
            " VALUES ('in_doubt', 'a run', jsonb_build_object('user', %s::text), '{}')",
            (ADDRESS,),
        )
        found = sorted(addresses_in_postgres(ledger, "lifecycle"))
    postgres_server.drop_database("planted")
    assert found == [f"alerts.facts: {ADDRESS}", f"suppressions.reason: {ADDRESS}"]


def test_address_planted_in_a_file_or_an_xcom_is_found(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "dag_id=welcome" / "attempt=1.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"sent to {ADDRESS}\n")
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        database.execute("CREATE TABLE xcom (value TEXT)")
        database.execute("INSERT INTO xcom VALUES (?)", (f'{{"to": "{ADDRESS}"}}',))
    database.close()
    assert list(addresses_in_files(tmp_path / "logs")) == [f"dag_id=welcome/attempt=1.log: {ADDRESS}"]
    assert list(addresses_in_sqlite(tmp_path / "airflow.db")) == [f"xcom: {ADDRESS}"]


def test_address_in_a_log_line_or_an_error_is_heard(listener: Listener) -> None:
    logging.getLogger("lifecycle_emails.delivery.lane").debug("sent to %s", ADDRESS)
    LedgerError(f"no user with {ADDRESS}")
    assert listener.take() == [f"sent to {ADDRESS}", f"no user with {ADDRESS}"]
    LedgerError("no such user")
    assert listener.take() == []
