"""A process that sends what is ready, for tests to kill: `python -m ... INCLUDE LEDGER SOURCE SMTP_PORT`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.delivery.sender import SendingTools, send_group
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.ledger.batches import ready_groups
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.throttle import load_throttle


def main(include: str, ledger_url: str, source_url: str, port: str) -> None:
    folder = Path(include)
    campaign = load_campaign(folder, "welcome")
    tools = SendingTools(
        campaign=campaign,
        audience=Audience.load(folder, campaign),
        templates=MessageTemplates.load(folder, campaign),
        smtp=SmtpSettings("127.0.0.1", int(port), security="none", dot_timeout=10),
        connect_ledger=lambda: psycopg.connect(ledger_url),
        connect_source=lambda: psycopg.connect(source_url),
        throttle=load_throttle(folder, campaign.smtp_conn_id),
    )
    with psycopg.connect(ledger_url, autocommit=True) as ledger:
        dates = [row[0] for row in ledger.execute("SELECT DISTINCT cohort_date FROM lifecycle.cohorts")]
        groups = ready_groups(ledger, campaign, dates, max_groups=1024)
    for group in groups:
        send_group(tools, group, stop=threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
