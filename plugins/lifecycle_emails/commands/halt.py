"""``lifecycle halt`` and ``resume``: stop all sending, or one campaign's, and go on."""

from __future__ import annotations

import argparse

from lifecycle_emails.commands.command import (
    Commands,
    actor,
    add_campaign_and_reason,
    add_command,
    check_campaign,
)
from lifecycle_emails.ledger.orders import halt, resume
from lifecycle_emails.ledger.session import Connect, ledger_session


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
        check_campaign(ledger, options.campaign)
        done = halt(ledger, campaign_id=options.campaign, reason=options.reason, actor=actor(ledger))
    return "sending is halted" if done else "was halted before; nothing changed"


def run_resume(options: argparse.Namespace, connect: Connect) -> str:
    """Let sending go on."""
    with ledger_session(connect) as ledger:
        done = resume(ledger, campaign_id=options.campaign, reason=options.reason, actor=actor(ledger))
    return "sending goes on" if done else "there was no such halt; nothing changed"
