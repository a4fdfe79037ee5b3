"""What all commands share: how one is described to argparse, who gives an order, which campaigns exist."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeAlias

from lifecycle_emails.campaign import campaign_ids
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.actions import Actor
from lifecycle_emails.ledger.orders import known_campaigns
from lifecycle_emails.ledger.session import Connect, LedgerConnection
from lifecycle_emails.operation import carry_out
from lifecycle_emails.order import LONGEST_RANGE_DAYS, Order

INCLUDE_HERE = Path("include")
"""Where a command looks for campaigns that no run has planned yet."""

FIRST_DATE, LAST_DATE = date(1970, 1, 1), date(2999, 12, 31)
"""No user was created before or will be after."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  (no public name)
"""What ``ArgumentParser.add_subparsers`` returns."""

Run: TypeAlias = Callable[[argparse.Namespace, Connect], str]
"""A command: takes its options and how to open the ledger, returns what to print."""


def add_command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """Describe a command; ``text`` says in half a sentence what it does."""
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    return command


def add_campaign_and_reason(command: argparse.ArgumentParser) -> None:
    """Options of an order that holds in one campaign or in all."""
    command.add_argument("--campaign", metavar="ID", help="in this campaign only; in all when not given")
    add_reason(command)


def add_reason(command: argparse.ArgumentParser) -> None:
    """Ask for the reason that every order is kept with."""
    command.add_argument("--reason", required=True, help="why; it is kept with your name")


def add_cohort_range(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Options that name the cohorts between two dates, both included."""
    add_date_range(command, "cohort", "cohort date", required=required)


def add_date_range(
    command: argparse.ArgumentParser, prefix: str, what: str, *, required: bool = False
) -> None:
    """Options ``--<prefix>-from`` and ``--<prefix>-to``; `checked_range` reads them."""
    for name, text in (("from", f"first {what}"), ("to", f"last {what}, included")):
        command.add_argument(
            f"--{prefix}-{name}", type=written_date, required=required, metavar="YYYY-MM-DD", help=text
        )


def check_cohort_range(options: argparse.Namespace) -> None:
    """Raise LedgerError for half a range, a reversed one, or one longer than a year."""
    checked_range(options, "cohort")


def checked_range(options: argparse.Namespace, prefix: str) -> tuple[date, date] | None:
    """Return the range of dates, None when not given; LedgerError for half of one, reversed, too long."""
    first, last = getattr(options, f"{prefix}_from"), getattr(options, f"{prefix}_to")
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise LedgerError(f"give --{prefix}-from and --{prefix}-to together; nothing was changed")
    if first > last:
        raise LedgerError(f"--{prefix}-from {first} is later than --{prefix}-to {last}; nothing was changed")
    if (last - first).days > LONGEST_RANGE_DAYS:
        raise LedgerError(
            f"{first} to {last} is more than {LONGEST_RANGE_DAYS} days; is a year right? Nothing was changed"
        )
    return first, last


def check_campaign(ledger: LedgerConnection, campaign_id: str | None) -> None:
    """A mistyped id would look as if sending had stopped. Known: planned before, or a file in ./include."""
    known = {*known_campaigns(ledger), *campaign_ids(INCLUDE_HERE)}
    if campaign_id is not None and campaign_id not in known:
        raise LedgerError(
            f"there is no campaign {campaign_id}; nothing was changed. "
            f"Known: {', '.join(sorted(known)) or 'none'}"
        )


def ordered(ledger: LedgerConnection, order: Order) -> str:
    """Carry out an order in the name of whoever runs this command, audited; return what came of it."""
    return carry_out(ledger, order, Actor(actor(ledger), "command"), campaign_ids(INCLUDE_HERE)).result


def actor(ledger: LedgerConnection) -> str:
    """The database role, which the server vouches for, and the login name, which it does not."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        login = f"uid {os.getuid()}"
    return f"{ledger.info.user} (command, {login})"


def written_date(text: str) -> date:
    """Read a date, for argparse; one that leaves room for reckoning with it."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as YYYY-MM-DD") from None
    if not FIRST_DATE <= day <= LAST_DATE:
        raise argparse.ArgumentTypeError(f"{text}: write a date from {FIRST_DATE} to {LAST_DATE}")
    return day


def written_user(text: str) -> str:
    """Read a user's id, for argparse; orders check theirs themselves."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the user's id is blank")
    return text.strip()
