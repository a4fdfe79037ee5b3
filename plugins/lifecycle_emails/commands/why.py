"""``lifecycle why``: what was decided about a user, and what happens next."""

from __future__ import annotations

import argparse
import json

from lifecycle_emails.commands.command import Commands, add_command, written_user
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.history import UserHistory, histories_of_address, history_of_user
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.why_text import in_one_sentence, why_text


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "why", run, "tell why a user got a mail or not, and what happens next")
    command.add_argument(
        "user", nargs="?", type=written_user, metavar="USER", help="the user's id in the source"
    )
    command.add_argument("--address", help="by address; reads all sends, so it may take a minute")
    command.add_argument("--json", action="store_true", help="print it as JSON")


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Look the user up."""
    if (options.user is None) == (options.address is None):
        raise LedgerError("name a user, or an address by --address; nothing was changed")
    if options.user is not None and "@" in options.user:
        raise LedgerError("this is no user's id; an address goes behind --address. Nothing was changed")
    with ledger_session(connect) as ledger:
        if options.user is not None:
            found = [history_of_user(ledger, options.user)]
        else:
            found = histories_of_address(ledger, options.address)
    if options.json:
        return json.dumps([_as_dict(user) for user in found], default=str, indent=1)
    return "\n\n".join(why_text(user) for user in found)


def _as_dict(user: UserHistory) -> dict[str, object]:
    return {**user.as_dict(), "sentences": [in_one_sentence(user, send) for send in user.sends]}
