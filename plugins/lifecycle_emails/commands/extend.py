"""``lifecycle extend``: let cohorts be mailed after their deadline, by one approval for the whole range."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from lifecycle_emails.campaign import campaign_ids
from lifecycle_emails.commands.command import (
    INCLUDE_HERE,
    Commands,
    add_cohort_range,
    add_command,
    add_reason,
    ordered,
)
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.extending import Extension, look_at_extension
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.operation import check_order, told_extension
from lifecycle_emails.order import Action, Order

EPILOG = """\
Says how many users it may reach, and asks. The next scheduled run takes these cohorts along and judges their
users again: frequency cap and suppressions hold.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "extend", run, "lengthen the deadline of a range of cohorts")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    add_cohort_range(command, required=True)
    command.add_argument(
        "--days",
        type=int,
        required=True,
        metavar="N",
        help="so many days from the deadline, or from now if past",
    )
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--earlier-extensions",
        type=int,
        default=0,
        metavar="N",
        help="with --yes: of so many extensions of these cohorts you know; another number is refused",
    )
    add_reason(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Show, ask, extend."""
    order = Order(
        Action.EXTEND,
        options.reason,
        options.campaign,
        cohort_from=options.cohort_from,
        cohort_to=options.cohort_to,
        days=options.days,
    )
    with ledger_session(connect) as ledger:
        check_order(ledger, order, campaign_ids(INCLUDE_HERE))  # before anybody is asked
        extension = look_at_extension(
            ledger, options.campaign, options.cohort_from, options.cohort_to, options.days
        )
        if not _approved(extension, options):
            raise LedgerError("not approved; nothing was changed")
        approved = replace(order, approved_users=extension.users, earlier_extensions=extension.earlier)
        return ordered(ledger, approved)


def _approved(extension: Extension, options: argparse.Namespace) -> bool:
    if options.yes and options.earlier_extensions == extension.earlier:
        return True
    if options.yes or not sys.stdin.isatty():
        known = f" --earlier-extensions {extension.earlier}" if extension.earlier else ""
        raise LedgerError(f"{told_extension(extension)}. Nothing was changed; approve it with --yes{known}")
    try:
        return input(f"{told_extension(extension)}. Extend? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
