"""What the core sends with, gathered from a campaign's files and Airflow's connections."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.operators.connections import ledger_connector, smtp_settings, source_connector

if TYPE_CHECKING:
    from lifecycle_emails.delivery.sender import SendingTools


def sending_tools(campaign: Campaign, include_dir: Path, ledger_conn_id: str) -> "SendingTools":
    """Gather audience, templates, mail server and databases of a campaign.

    Airflow is asked for the connections here, so call it in a task's main thread. The ledger is compared with
    its witness first: one that went back in time lets nothing through its gate from then on.

    :raises ConfigurationError: a file has a mistake, a template does not compile, or a connection is missing.
    """
    from lifecycle_emails.audience import Audience  # noqa: PLC0415  (psycopg comes with these)
    from lifecycle_emails.delivery.sender import SendingTools  # noqa: PLC0415
    from lifecycle_emails.ledger.session import ledger_session  # noqa: PLC0415
    from lifecycle_emails.ledger.witness import WITNESS_VARIABLE, watch, witness_of  # noqa: PLC0415
    from lifecycle_emails.message import MessageTemplates  # noqa: PLC0415
    from lifecycle_emails.throttle import load_throttle  # noqa: PLC0415

    connect_ledger = ledger_connector(ledger_conn_id)
    with ledger_session(connect_ledger) as ledger:
        watch(ledger, witness_of(os.environ.get(WITNESS_VARIABLE)))
    return SendingTools(
        campaign=campaign,
        audience=Audience.load(include_dir, campaign),
        templates=MessageTemplates.load(include_dir, campaign),
        smtp=smtp_settings(campaign.smtp_conn_id),
        connect_ledger=connect_ledger,
        connect_source=source_connector(campaign.source_conn_id),
        throttle=load_throttle(include_dir, campaign.smtp_conn_id),
    )
