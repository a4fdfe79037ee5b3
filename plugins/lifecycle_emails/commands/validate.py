"""``lifecycle validate``: check what people wrote into the include folder. Needs no ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

from lifecycle_emails.commands.command import Commands, add_command
from lifecycle_emails.errors import LifecycleError
from lifecycle_emails.ledger.session import Connect


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "validate", run, "check what stands in the include folder")
    command.add_argument("campaign", nargs="*", help="ids of campaigns; all of them when none is given")
    command.add_argument(
        "--include", type=Path, default=Path("include"), metavar="DIR", help="default: include"
    )


def run(options: argparse.Namespace, connect: Connect) -> str:  # noqa: ARG001  (as every command)
    """Read everything and report every mistake, not only the first."""
    from lifecycle_emails.audience import Audience  # noqa: PLC0415  (not needed by the other commands)
    from lifecycle_emails.campaign import load_campaign  # noqa: PLC0415
    from lifecycle_emails.daily_limit import load_daily_limits  # noqa: PLC0415
    from lifecycle_emails.message import MessageTemplates  # noqa: PLC0415
    from lifecycle_emails.throttle import check_throttles_are_used, load_throttles  # noqa: PLC0415

    names = options.campaign or sorted(file.stem for file in (options.include / "campaigns").glob("*.yaml"))
    if not names:
        raise LifecycleError(
            f"no campaign files in {options.include / 'campaigns'}; name the folder by --include"
        )
    mistakes = []
    smtp_conn_ids = set()
    for name in names:
        try:
            campaign = load_campaign(options.include, name)
        except LifecycleError as error:
            mistakes.append(str(error))
            continue
        smtp_conn_ids.add(campaign.smtp_conn_id)
        for load in (Audience.load, MessageTemplates.load, load_daily_limits):
            try:
                load(options.include, campaign)
            except LifecycleError as error:
                mistakes.append(str(error))
    try:
        if options.campaign or mistakes:  # then it is not known which connections the other campaigns use
            load_throttles(options.include)
        else:
            check_throttles_are_used(options.include, smtp_conn_ids)
    except LifecycleError as error:
        mistakes.append(str(error))
    if mistakes:
        # a file that all campaigns share has its mistake for each of them
        raise LifecycleError("\n".join(dict.fromkeys(mistakes)))
    return f"no mistakes in {', '.join(names)}"
