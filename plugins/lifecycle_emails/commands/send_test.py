"""``lifecycle send-test``: one mail of a campaign to an address, to see it as it arrives."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from functools import partial

from lifecycle_emails.campaign import campaign_ids, load_campaign
from lifecycle_emails.commands.command import Commands, actor, add_command, add_reason
from lifecycle_emails.commands.source import add_source, connect_to_source
from lifecycle_emails.ledger.actions import Actor
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.order import Action, Order

EPILOG = """\
Its subject is marked [test]. It is no send of the ledger: no cap, no suppression and no halt concerns it,
and the user whose mail it shows gets nothing. The mail server is the campaign's Airflow connection; the
variable AIRFLOW_CONN_<ID OF THE CONNECTION> in the environment will do.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "send-test", run, "send one mail of a campaign to an address, as a test")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    command.add_argument("--to", required=True, metavar="ADDRESS", help="only its keyed hash is kept")
    command.add_argument("--user", metavar="ID", help="whose mail; by default the newest cohort's first user")
    add_source(command)
    add_reason(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Send it."""
    from lifecycle_emails.audience import Audience  # noqa: PLC0415  (not needed by the other commands)
    from lifecycle_emails.delivery.mails import SendingTools  # noqa: PLC0415
    from lifecycle_emails.delivery.test_mail import send_test  # noqa: PLC0415
    from lifecycle_emails.message import MessageTemplates  # noqa: PLC0415
    from lifecycle_emails.operators.connections import smtp_settings  # noqa: PLC0415  (imports Airflow)

    campaign = load_campaign(options.include, options.campaign)
    tools = SendingTools(
        campaign=campaign,
        audience=Audience.load(options.include, campaign),
        templates=MessageTemplates.load(options.include, campaign),
        smtp=smtp_settings(campaign.smtp_conn_id),
        connect_ledger=connect,
        connect_source=partial(connect_to_source, options, campaign.source_conn_id),
    )
    users = () if options.user is None else (options.user,)
    order = Order(Action.SEND_TEST, options.reason, campaign.id, user_ids=users, address=options.to)
    with ledger_session(connect) as ledger:
        by = Actor(actor(ledger), "command")
    campaigns = campaign_ids(options.include)
    return send_test(tools, order, options.to, by, campaigns, now=datetime.now(UTC)).result
