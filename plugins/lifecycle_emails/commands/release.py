"""``lifecycle release``: judge rejected or capped users again, or let a refused cohort go out."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import Commands, add_command, add_reason, ordered, written_date
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.order import Action, Order

EPILOG = """\
The next run judges them again: suppression, frequency cap and deadline hold. A mail that a server has
accepted is never released, even when it bounced later.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "release", run, "let the next run judge users or a refused cohort again")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--user", action="append", metavar="ID", help="rejected or capped; may be repeated")
    what.add_argument(
        "--cohort", type=written_date, metavar="YYYY-MM-DD", help="a cohort that was refused for its size"
    )
    add_reason(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Release."""
    if options.cohort is not None:
        day = options.cohort
        order = Order(Action.RELEASE_COHORT, options.reason, options.campaign, cohort_from=day, cohort_to=day)
    else:
        order = Order(Action.RELEASE, options.reason, options.campaign, user_ids=tuple(options.user))
    with ledger_session(connect) as ledger:
        return ordered(ledger, order)
