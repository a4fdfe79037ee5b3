"""``lifecycle preview``: one user's mail as files, opened in the browser. Needs no ledger."""

from __future__ import annotations

import argparse
import tempfile
import webbrowser
from datetime import UTC, datetime
from pathlib import Path

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.commands.command import Commands, add_command, written_user
from lifecycle_emails.commands.source import add_source, open_source
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.ledger.session import Connect
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.preview import render_preview, write_preview

EPILOG = "The files hold what the mail holds, the user's address too: delete them when you have seen them."


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "preview", run, "show one user's mail in the browser; send nothing")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    command.add_argument(
        "--user", type=written_user, required=True, metavar="ID", help="the user's id in the source"
    )
    command.add_argument("--to", type=Path, metavar="DIR", help="folder to write into; default: a new one")
    command.add_argument("--no-open", action="store_true", help="only write the files")
    add_source(command)


def run(options: argparse.Namespace, connect: Connect) -> str:  # noqa: ARG001  (as every command)
    """Render, write, open."""
    campaign = load_campaign(options.include, options.campaign)
    audience = Audience.load(options.include, campaign)
    templates = MessageTemplates.load(options.include, campaign)
    with open_source(options, campaign.source_conn_id) as source:
        message = render_preview(campaign, audience, templates, source, options.user, datetime.now(UTC))
    folder = options.to or Path(tempfile.mkdtemp(prefix="lifecycle-preview-"))
    try:
        preview = write_preview(message, folder, campaign.id, options.user)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from None
    if not options.no_open:
        webbrowser.open(preview.html.absolute().as_uri())
    lines = [f"{name}: {value}" for name, value in preview.headers]
    return "\n".join([*lines, "", *map(str, (preview.html, preview.text, preview.whole))])
