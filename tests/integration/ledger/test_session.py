"""A ledger connection straight to PostgreSQL, and through a pooler that changes servers between transactions."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import ExitStack

import psycopg
import pytest

from lifecycle_emails.ledger.session import connect_to_ledger, ledger_transaction
from local_stack.postgres import PostgresServer
from reliability.pgbouncer import INSTALL, pgbouncer_program, running_pgbouncer


class Pooler:
    """Forwards one connection, and like a pooler announces another server process than the one that answers."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        pump = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        pump.start()
        self._pump(server, client)
        pump.join()
        for sock in (client, server, self._listener):
            sock.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            # BackendKeyData: 'K', length 12, process id, secret
            sink.sendall(
                re.sub(rb"(?s)K\x00\x00\x00\x0c.{4}", b"K\x00\x00\x00\x0c\x7f\xff\xff\xff", data, count=1)
            )
        sink.shutdown(socket.SHUT_WR)


def use(ledger: psycopg.Connection) -> None:
    with ledger_transaction(ledger, lock_timeout=5, statement_timeout=5):
        ledger.execute("SELECT count(*) FROM lifecycle.sends")


def test_session_prepares_statements_on_a_connection_of_its_own(ledger_database: str) -> None:
    with connect_to_ledger(lambda: psycopg.connect(ledger_database)) as ledger:
        for _ in range(10):
            use(ledger)
        prepared = ledger.execute("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone()
    assert prepared == (True,)


def test_session_behind_a_pooler_prepares_nothing(ledger_database: str) -> None:
    at = psycopg.conninfo.conninfo_to_dict(ledger_database)
    pooler = Pooler(int(at["port"] or 0))
    url = psycopg.conninfo.make_conninfo(
        ledger_database, port=pooler.port, sslmode="disable", gssencmode="disable"
    )
    with connect_to_ledger(lambda: psycopg.connect(url)) as ledger:
        for _ in range(10):
            use(ledger)
        prepared = ledger.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared == (0,)


@pytest.mark.skipif(pgbouncer_program() is None, reason=f"PgBouncer is not installed: {INSTALL}")
def test_sessions_share_the_servers_of_a_transaction_pooler(
    postgres_server: PostgresServer, ledger_database: str
) -> None:
    name = ledger_database.rpartition("/")[2]
    with running_pgbouncer(postgres_server, [name], pool_size=1) as pooler, ExitStack() as open_connections:
        sessions = [
            open_connections.enter_context(connect_to_ledger(lambda: psycopg.connect(pooler.url(name))))
            for _ in range(2)
        ]
        for _ in range(10):  # psycopg prepares a statement when it has seen it five times
            for ledger in sessions:
                use(ledger)
