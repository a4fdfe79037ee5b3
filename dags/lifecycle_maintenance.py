"""The team is told by e-mail what needs a person; add a way that needs no mail server, such as a chat."""

from datetime import UTC, datetime

from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from lifecycle_emails import lifecycle_maintenance_dag

dag = lifecycle_maintenance_dag(
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # Better two ways than one: a mail server that refuses everything is among the things to tell.
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
