"""The old way, as many applications have it: a Celery task that sends a mail, scheduled for later.

A worker runs it by ``celery --app reliability.incident.old_app worker``. OLD_APP_BROKER and OLD_APP_SMTP_PORT
tell it where Redis and the mail server are.
"""

import os
import smtplib
from email.message import EmailMessage

from celery import Celery  # type: ignore[import-untyped]

from local_stack.ports import LOOPBACK
from reliability.incident.scale import CAMPAIGN, TRANSPORT_OPTIONS

app = Celery("old_app", broker=os.environ.get("OLD_APP_BROKER"))
app.conf.broker_transport_options = TRANSPORT_OPTIONS
app.conf.task_ignore_result = True


@app.task  # type: ignore[untyped-decorator]
def send_lifecycle_mail(user_id: int) -> None:
    """Send the user the mail. What was sent before is nobody's business here: that is the point."""
    message = EmailMessage()
    message["From"] = "hello@example.com"
    message["To"] = f"user{user_id}@example.com"
    message["Subject"] = "Getting more out of it"
    message.set_content(f"Hello!\n\nReference: {CAMPAIGN}/{user_id}\n")
    with smtplib.SMTP(LOOPBACK, int(os.environ["OLD_APP_SMTP_PORT"]), timeout=60) as client:
        client.send_message(message)
