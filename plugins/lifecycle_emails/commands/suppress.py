"""``lifecycle suppress`` and ``unsuppress``: whom never to mail."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import Commands, add_campaign_and_reason, add_command, ordered
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.order import Action, Order


def add(commands: Commands) -> None:
    """Describe the commands."""
    for name, run, text in (
        ("suppress", run_suppress, "never mail a user, or an address whoever has it"),
        ("unsuppress", run_unsuppress, "lift a suppression"),
    ):
        command = add_command(commands, name, run, text)
        whom = command.add_mutually_exclusive_group(required=True)
        whom.add_argument("--user", metavar="ID", help="the user's id in the source")
        whom.add_argument("--address", help="the e-mail address; only its keyed hash is kept")
        add_campaign_and_reason(command)


def run_suppress(options: argparse.Namespace, connect: Connect) -> str:
    """Suppress a user or an address."""
    with ledger_session(connect) as ledger:
        return ordered(ledger, _order(Action.SUPPRESS, options))


def run_unsuppress(options: argparse.Namespace, connect: Connect) -> str:
    """Lift a suppression."""
    with ledger_session(connect) as ledger:
        return ordered(ledger, _order(Action.UNSUPPRESS, options))


def _order(action: Action, options: argparse.Namespace) -> Order:
    users = () if options.user is None else (options.user,)
    return Order(action, options.reason, options.campaign, user_ids=users, address=options.address)
