"""``lifecycle migrate``: create or update the ledger's tables."""

from __future__ import annotations

import argparse
import os

import psycopg

from lifecycle_emails.commands.command import Commands, add_command
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.session import Connect, first_line, ledger_session
from lifecycle_emails.ledger.witness import WITNESS_VARIABLE, durability_warnings, learn_server, witness_of


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "migrate", run, "create or update the ledger's tables; safe to repeat")
    command.add_argument("--check", action="store_true", help="only say whether the ledger is up to date")


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Apply the migrations that are missing, or only look."""
    if options.check:
        witness = witness_of(os.environ.get(WITNESS_VARIABLE))
        with ledger_session(connect) as ledger:
            warnings = durability_warnings(ledger, witness)
        return "\n".join(["the ledger is up to date", *(f"warning: {warning}" for warning in warnings)])
    try:
        with connect() as connection:
            applied = migrate(connection)
            learn_server(connection)
    except psycopg.Error as error:
        raise LedgerError(
            f"the ledger could not be migrated; nothing was done by half: {first_line(error)}"
        ) from None
    return f"applied: {', '.join(applied)}" if applied else "the ledger is up to date; nothing to apply"
