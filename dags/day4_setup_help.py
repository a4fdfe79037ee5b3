"""The team is told by e-mail when users would get too many mails; set other recipients and notifiers here."""

import os
from datetime import UTC, datetime

from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from lifecycle_emails import lifecycle_dag

dag = lifecycle_dag(
    "day4_setup_help",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    dry_run_reports=os.environ.get("LIFECYCLE_DRY_RUN_REPORTS"),  # a folder, best in an object store
    on_limit_exceeded=[
        SmtpNotifier(
            smtp_conn_id="lifecycle_smtp",
            from_email="Lifecycle e-mails <alerts@example.com>",
            to="team@example.com",
            subject="{{ alert.subject }}",
            html_content="{{ alert.html }}",
        ),
    ],
)
