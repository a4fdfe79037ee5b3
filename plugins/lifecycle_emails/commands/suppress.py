"""``lifecycle suppress`` and ``unsuppress``: whom never to mail."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import (
    Commands,
    actor,
    add_campaign_and_reason,
    add_command,
    check_campaign,
)
from lifecycle_emails.ledger.orders import suppress, unsuppress
from lifecycle_emails.ledger.session import Connect, ledger_session


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
        check_campaign(ledger, options.campaign)
        done = suppress(
            ledger,
            user_id=options.user,
            address=options.address,
            campaign_id=options.campaign,
            reason=options.reason,
            actor=actor(ledger),
        )
    return "suppressed" if done else "was suppressed before; nothing changed"


def run_unsuppress(options: argparse.Namespace, connect: Connect) -> str:
    """Lift a suppression."""
    with ledger_session(connect) as ledger:
        done = unsuppress(
            ledger,
            user_id=options.user,
            address=options.address,
            campaign_id=options.campaign,
            reason=options.reason,
            actor=actor(ledger),
        )
    return "suppression lifted" if done else "there was no such suppression; nothing changed"
