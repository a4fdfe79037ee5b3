"""What all commands share: how one is described to argparse, who gives an order, which campaigns exist."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.orders import known_campaigns
from lifecycle_emails.ledger.session import Connect, LedgerConnection

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


def check_campaign(ledger: LedgerConnection, campaign_id: str | None) -> None:
    """A mistyped id would look as if sending had stopped. Known: planned before, or a file in ./include."""
    known = set(known_campaigns(ledger)) | {file.stem for file in Path("include/campaigns").glob("*.yaml")}
    if campaign_id is not None and campaign_id not in known:
        raise LedgerError(
            f"there is no campaign {campaign_id}; nothing was changed. "
            f"Known: {', '.join(sorted(known)) or 'none'}"
        )


def actor(ledger: LedgerConnection) -> str:
    """The database role, which the server vouches for, and the login name, which it does not."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        login = f"uid {os.getuid()}"
    return f"{ledger.info.user} (command, {login})"
