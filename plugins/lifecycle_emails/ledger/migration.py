"""Numbered SQL migrations of the ledger: applied once each, in order, safe to run twice at once.

Knows the files in ``sql/migrations`` and the table that remembers them. Must not know what they create.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.queries import query

MINIMUM_SERVER_VERSION = 150000
"""PostgreSQL 15: NULLS NOT DISTINCT."""


@dataclass(frozen=True)
class Migration:
    """One file: ``number`` counts from 1 without gaps, ``checksum`` is its SHA-256 in hex."""

    number: int
    name: str
    text: bytes
    checksum: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations that ship with the package, in order."""
    folder = files("lifecycle_emails") / "sql" / "migrations"
    found = []
    for file_name in sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql")):
        text = (folder / file_name).read_bytes()
        number, name = file_name.removesuffix(".sql").split("_", 1)
        found.append(Migration(int(number), name, text, hashlib.sha256(text).hexdigest()))
    return tuple(found)


def migrate(connection: psycopg.Connection[Any]) -> list[str]:
    """Bring the ledger's schema up to date and return the names of the migrations applied by this call.

    Takes an advisory lock first, so that two calls at once apply each migration once. Each migration is one
    transaction: it is there whole, or not at all. Raises LedgerError when an applied migration differs from
    its file, when the database is newer than this package, or when the server is too old.
    """
    if connection.info.server_version < MINIMUM_SERVER_VERSION:
        raise LedgerError(
            "the ledger needs PostgreSQL 15 or newer; this server is version "
            f"{connection.info.server_version // 10000}"
        )
    connection.autocommit = True
    connection.prepare_threshold = None  # nothing to gain, and a transaction pooler would lose track of them
    applied_now = []
    for migration in migrations():
        with connection.transaction():
            connection.execute(query("lock_migrations"))
            connection.execute(query("create_migrations_table"))
            if migration.number in _applied(connection):
                continue
            connection.execute(migration.text)
            connection.execute(
                query("record_migration"),
                {"number": migration.number, "name": migration.name, "checksum": migration.checksum},
            )
        applied_now.append(migration.name)
    check_migrated(connection)
    return applied_now


def check_migrated(connection: psycopg.Connection[Any]) -> None:
    """Raise LedgerError unless exactly this package's migrations have been applied."""
    try:
        applied = _applied(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        applied = {}
    missing = [m for m in migrations() if m.number not in applied]
    if missing:
        raise LedgerError(
            f"the ledger lacks migration {missing[0].number:04d}_{missing[0].name}; nothing was changed. "
            "Run: lifecycle migrate"
        )
    for migration in migrations():
        if applied[migration.number] != migration.checksum:
            raise LedgerError(
                f"migration {migration.number:04d}_{migration.name} was applied with another text than this "
                "package has; install the package version that made this ledger, or restore the file"
            )
    if len(applied) > len(migrations()):
        raise LedgerError(
            f"the ledger is at migration {max(applied):04d}, newer than this package knows "
            f"({len(migrations()):04d}); update the package"
        )


def _applied(connection: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(connection.execute(query("applied_migrations")).fetchall())
