"""What the core sends with, gathered from a campaign's files and Airflow's connections."""

from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.operators.connections import ledger_connector, smtp_settings, source_connector

if TYPE_CHECKING:
    from lifecycle_emails.delivery.sender import SendingTools


def sending_tools(campaign: Campaign, include_dir: Path, ledger_conn_id: str) -> "SendingTools":
    """Gather audience, templates, mail server and databases of a campaign.

    Airflow is asked for the connections here, so call it in a task's main thread.

    :raises ConfigurationError: a file has a mistake, a template does not compile, or a connection is missing.
    """
    from lifecycle_emails.audience import Audience  # noqa: PLC0415  (psycopg comes with these)
    from lifecycle_emails.delivery.sender import SendingTools  # noqa: PLC0415
    from lifecycle_emails.message import MessageTemplates  # noqa: PLC0415

    return SendingTools(
        campaign=campaign,
        audience=Audience.load(include_dir, campaign),
        templates=MessageTemplates.load(include_dir, campaign),
        smtp=smtp_settings(campaign.smtp_conn_id),
        connect_ledger=ledger_connector(ledger_conn_id),
        connect_source=source_connector(campaign.source_conn_id),
    )
