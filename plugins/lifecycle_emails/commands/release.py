"""``lifecycle release``: judge users again whom a server rejected, or the cap refused for good."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import Commands, add_command, add_reason, ordered
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.order import Action, Order

EPILOG = """\
The next run judges them again: suppression, frequency cap and deadline hold. A mail that a server has
accepted is never released, even when it bounced later.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "release", run, "let the next run judge rejected or capped users again")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    command.add_argument(
        "--user", action="append", required=True, metavar="ID", help="this user; may be repeated"
    )
    add_reason(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Release."""
    with ledger_session(connect) as ledger:
        return ordered(
            ledger, Order(Action.RELEASE, options.reason, options.campaign, user_ids=tuple(options.user))
        )
