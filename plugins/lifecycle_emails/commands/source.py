"""How a command reads campaign files and reaches the source of users: options, and the connection.

Airflow is asked only for its connection, and only when no DSN is given.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from lifecycle_emails.errors import ConfigurationError, SourceError
from lifecycle_emails.ledger.session import first_line

SOURCE_VARIABLE = "LIFECYCLE_SOURCE_DSN"


def add_source(command: argparse.ArgumentParser) -> None:
    """Options that say where campaigns and users are."""
    command.add_argument(
        "--include", type=Path, default=Path("include"), metavar="DIR", help="default: include"
    )
    command.add_argument(
        "--source",
        metavar="DSN",
        help=f"PostgreSQL connection string of the users' database; else ${SOURCE_VARIABLE}, else the "
        "campaign's Airflow connection",
    )


@contextmanager
def open_source(options: argparse.Namespace, conn_id: str) -> Iterator[psycopg.Connection[Any]]:
    """Open the users' database for the length of a with block; raises what `connect_to_source` raises."""
    with closing(connect_to_source(options, conn_id)) as source:
        yield source


def connect_to_source(options: argparse.Namespace, conn_id: str) -> psycopg.Connection[Any]:
    """Open the users' database, read-only by what the audience states.

    Raises SourceError when it cannot be reached; the message holds no password.
    """
    dsn = options.source or os.environ.get(SOURCE_VARIABLE)
    try:
        return psycopg.connect(dsn, autocommit=True) if dsn else _by_airflow(conn_id)
    except psycopg.ProgrammingError:
        # without its text: the message of the library quotes the part with the password
        raise ConfigurationError(
            "the source's connection string cannot be read; nothing was changed. Write "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded"
        ) from None
    except psycopg.OperationalError as error:
        raise SourceError(
            "the database of the users cannot be reached; nothing was changed. Check --source, "
            f"${SOURCE_VARIABLE} or the Airflow connection {conn_id}. It said: {first_line(error)}"
        ) from None


def _by_airflow(conn_id: str) -> psycopg.Connection[Any]:
    from lifecycle_emails.operators.connections import source_connector  # noqa: PLC0415  (imports Airflow)

    return source_connector(conn_id)()
