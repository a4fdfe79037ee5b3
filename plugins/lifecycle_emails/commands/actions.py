"""``lifecycle actions``: what people did, when, why, and what came of it."""

from __future__ import annotations

import argparse
import json

from lifecycle_emails.commands.command import Commands, add_command, check_campaign
from lifecycle_emails.ledger.actions import Audited, list_actions
from lifecycle_emails.ledger.session import Connect, ledger_session


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "actions", run, "list what people did, the newest first")
    command.add_argument("--campaign", metavar="ID", help="in this campaign only")
    command.add_argument("--last", type=_count, default=50, metavar="N", help="so many of them; default: 50")


def run(options: argparse.Namespace, connect: Connect) -> str:
    """List."""
    with ledger_session(connect) as ledger:
        check_campaign(ledger, options.campaign)
        found = list_actions(ledger, campaign_id=options.campaign, at_most=options.last)
    return "\n".join(map(_told, found)) or "nobody has done anything yet"


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of actions; write 1 or more")
    return int(text)


def _told(action: Audited) -> str:
    asked = " ".join(f"{name}={json.dumps(value)}" for name, value in sorted(action.arguments.items()))
    by = action.actor if action.run_key is None else f"{action.actor} by run {action.run_key}"
    result = (action.result or "begun; what came of it is not known").splitlines()[0]
    at = action.happened_at.isoformat(timespec="seconds")
    number = action.action_id or "-"
    return (
        f"{number}  {at}  {by}, database role {action.database_role}: {action.action} {asked}"
        f" because: {action.reason}. Result: {result}"
    )
