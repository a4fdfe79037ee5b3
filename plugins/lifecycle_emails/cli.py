"""The ``lifecycle`` command: what a person does to the ledger outside Airflow's UI.

Parses arguments, knows how to reach the ledger, runs one command of `commands`, prints its result. Airflow is
asked only for its connection, and only when no DSN is given.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

import psycopg
from psycopg.conninfo import conninfo_to_dict

from lifecycle_emails.commands import TOPICS
from lifecycle_emails.errors import LedgerError, LifecycleError
from lifecycle_emails.ledger.session import LedgerConnection

DSN_VARIABLE = "LIFECYCLE_LEDGER_DSN"
CONNECTION_ID = "lifecycle_ledger"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0: done, 1: refused or failed with a message, 2: wrong usage."""
    parser = _parser()
    options = parser.parse_args(_in_utf8(parser, sys.argv[1:] if arguments is None else arguments))
    try:
        print(options.run(options, partial(_connect, options)))
    except LifecycleError as error:
        print(f"lifecycle: {error}", file=sys.stderr)
        return 1
    return 0


def _in_utf8(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Sequence[str]:
    """Refuse what no database takes; Python smuggles bytes of another encoding in as surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            parser.error(f"{argument!r} is no UTF-8; nothing was changed")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lifecycle",
        description="Look after the sends ledger of the lifecycle e-mails.",
        epilog=f"The ledger's database is --ledger, else ${DSN_VARIABLE}, else the Airflow connection "
        f"{CONNECTION_ID}.",
    )
    parser.add_argument("--ledger", metavar="DSN", help="PostgreSQL connection string of the ledger")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for topic in TOPICS:
        topic.add(commands)
    return parser


def _connect(options: argparse.Namespace) -> LedgerConnection:
    dsn = options.ledger or os.environ.get(DSN_VARIABLE)
    if dsn:
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            # Without its text: the message of the library quotes the part with the password.
            raise LedgerError(
                "the ledger's connection string cannot be read; nothing was changed. Write "
                "postgresql://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded"
            ) from None
        return psycopg.connect(dsn, autocommit=True)
    from lifecycle_emails.operators.connections import ledger_connector  # noqa: PLC0415  (imports Airflow)

    return ledger_connector(CONNECTION_ID)()
