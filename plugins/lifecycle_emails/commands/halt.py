"""``lifecycle halt`` and ``resume``: stop all sending, or one campaign's, and go on."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import Commands, add_campaign_and_reason, add_command, ordered
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.order import Action, Order


def add(commands: Commands) -> None:
    """Describe the commands."""
    for name, run, text in (
        ("halt", run_halt, "stop sending within seconds, in running tasks too"),
        ("resume", run_resume, "lift a halt"),
    ):
        add_campaign_and_reason(add_command(commands, name, run, text))


def run_halt(options: argparse.Namespace, connect: Connect) -> str:
    """Stop sending."""
    with ledger_session(connect) as ledger:
        return ordered(ledger, Order(Action.HALT, options.reason, options.campaign))


def run_resume(options: argparse.Namespace, connect: Connect) -> str:
    """Let sending go on."""
    with ledger_session(connect) as ledger:
        return ordered(ledger, Order(Action.RESUME, options.reason, options.campaign))
