"""Looks for people's addresses where none may stand: log lines, errors, files, and every text of a database.

All example people are at example.com, example.org and example.net. What a team writes into its own files, the
sender of a campaign and who is alerted, names no user and is left out.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

TEAM = frozenset({"hello", "team", "alerts", "unsubscribe"})
"""Local parts of the team's own addresses."""
ADDRESS = r"[[:alnum:]._%+-]+@example[.](com|org|net)"
_ADDRESS = re.compile(r"([\w.%+-]+)@example\.(?:com|org|net)", re.IGNORECASE)
_OWN_FILES = frozenset({"serialized_dag", "dag_code", "connection"})
"""Tables in which Airflow keeps the team's own DAG files and connections."""


def addresses_in(text: str) -> set[str]:
    """Addresses of people in a text."""
    return {found[0] for found in _ADDRESS.finditer(text) if found[1].lower() not in TEAM}


def addresses_in_files(folder: Path) -> Iterator[str]:
    """Where addresses stand in the files below a folder, one line each."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            for address in sorted(addresses_in(file.read_text(errors="replace"))):
                yield f"{file.relative_to(folder)}: {address}"


def addresses_in_postgres(database: psycopg.Connection[Any], schema: str) -> Iterator[str]:
    """Where addresses stand in the tables of a schema, in columns of any type, one line each."""
    columns = database.execute(
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = %s AND table_type = 'BASE TABLE'",
        (schema,),
    ).fetchall()
    for table, column in columns:
        if table in _OWN_FILES:
            continue
        statement = sql.SQL(
            "SELECT DISTINCT {column}::text FROM {schema}.{table} WHERE {column}::text ~* {pattern}"
        )
        rows = database.execute(
            statement.format(
                schema=sql.Identifier(schema), table=sql.Identifier(table), column=sql.Identifier(column),
                pattern=sql.Literal(ADDRESS),
            )
        )  # fmt: skip
        for address in sorted(set().union(*(addresses_in(row[0]) for row in rows))):
            yield f"{table}.{column}: {address}"


def addresses_in_sqlite(file: Path) -> Iterator[str]:
    """Where addresses stand in the tables of a SQLite file, one line each."""
    with sqlite3.connect(file) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if table not in _OWN_FILES:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for address in sorted(set().union(*(addresses_in(str(value)) for value in row))):
                        yield f"{table}: {address}"
    database.close()


class Listener(logging.Handler):
    """Keeps what the package logs, and what its errors say, from `start` to `take`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log line, with the error that it tells of."""
        self._said.append(self.format(record))

    def hear(self, words: Iterable[object]) -> None:
        """Keep what an error says."""
        self._said += map(str, words)

    def take(self) -> list[str]:
        """Give what was said since the last time, where it names somebody."""
        said, self._said = self._said, []
        return [text for text in said if addresses_in(text)]
