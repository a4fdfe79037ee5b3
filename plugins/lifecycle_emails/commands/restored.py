"""``lifecycle restored``: say since when a restored ledger lacks its memory, and trust it again."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from lifecycle_emails.commands.command import Commands, actor, add_command, add_reason
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.ledger.witness import WITNESS_VARIABLE, trust_again, watch, witness_of
from lifecycle_emails.operation import told_halts_that_hold

EPILOG = """\
First give again what was ordered since then, for it is forgotten too: suppressions, halts, longer deadlines.
TIME is that of the backup, or of the last commit that the standby has, written as 2026-05-01T06:00+00:00.
When in doubt, take an earlier one.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(
        commands, "restored", run, "trust a ledger again that was restored, moved or failed over"
    )
    command.epilog = EPILOG
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="from when on its memory is missing; whoever may have been mailed since then is in doubt",
    )
    what.add_argument(
        "--nothing-lost",
        action="store_true",
        help="it was moved without losing a commit, all sending stopped; nobody is in doubt",
    )
    add_reason(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Look once more, then trust it again."""
    witness = witness_of(os.environ.get(WITNESS_VARIABLE))
    with ledger_session(connect) as ledger:
        watch(ledger, witness)
        in_doubt = trust_again(
            ledger,
            witness,
            since=options.since,
            now=datetime.now(UTC),
            reason=options.reason,
            actor=actor(ledger),
        )
        still = told_halts_that_hold(ledger, None)
    if not in_doubt:
        return f"sending goes on; nobody is in doubt for it{still}"
    return (
        f"sending goes on; {in_doubt} users may have been mailed in the time that is missing, and "
        f"are in doubt. Settle them: lifecycle settle CAMPAIGN{still}"
    )


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 2026-05-01T06:00+00:00") from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no time zone; write {at.isoformat(timespec='minutes')}+00:00 for UTC, for example"
        )
    return at
