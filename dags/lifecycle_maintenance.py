"""Who is told when something needs a person: the team, by e-mail.

That is one way, set in this DAG's file. Add one that needs no mail server, a chat for example: a mail server
that refuses everything is among the things to tell.
"""

from datetime import UTC, datetime

from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from lifecycle_emails import lifecycle_maintenance_dag

dag = lifecycle_maintenance_dag(
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    on_alert=[
        SmtpNotifier(
            smtp_conn_id="lifecycle_smtp",
            from_email="Lifecycle e-mails <alerts@example.com>",
            to="team@example.com",
            subject="{{ alert.subject }}",
            html_content="{{ alert.html }}",
        ),
    ],
)
