"""Send mails by django-post_office with queueing: `python send_by_post_office.py PORT SIZE [--tls]`.

Runs in an environment of its own that has Django; its database is DATABASE_URL. Reads the mail to send from
standard input as JSON: sender, subject, text, html. Prints what it took as JSON: first all
mails are queued, then 2 processes of 8 threads send them.
"""

import json
import os
import resource
import sys
import time
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command

PROCESSES, THREADS = 2, 8
QUEUED_AT_ONCE = 500


def configure(database: str, port: int, tls: bool) -> None:
    """Set Django up with this database and SMTP server."""
    url = urlsplit(database)
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.path.lstrip("/"), "USER": url.username, "PASSWORD": url.password,
                "HOST": url.hostname, "PORT": url.port,
            }
        },
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        EMAIL_USE_TLS=tls,
        POST_OFFICE={"BATCH_SIZE": 1000, "THREADS_PER_PROCESS": THREADS, "DEFAULT_PRIORITY": "medium"},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
        SECRET_KEY="not secret: nothing is signed",  # noqa: S106
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )  # fmt: skip
    django.setup()


def queue(mail: dict[str, str], size: int) -> None:
    """Put all mails into the queue."""
    from post_office.mail import send_many  # noqa: PLC0415

    def named(text: str, number: int) -> str:
        return text.replace("Ada Example", f"Ada {number}")

    for start in range(0, size, QUEUED_AT_ONCE):
        send_many(
            {
                "sender": mail["sender"],
                "recipients": [f"user{number}@example.com"],
                "subject": named(mail["subject"], number),
                "message": named(mail["text"], number),
                "html_message": named(mail["html"], number),
            }
            for number in range(start, min(start + QUEUED_AT_ONCE, size))
        )


def main() -> None:
    """Queue and send."""
    port, size, *tls = sys.argv[1:]
    configure(os.environ["DATABASE_URL"], int(port), bool(tls))
    from post_office.models import STATUS, Email, Log  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    Log.objects.all().delete()
    Email.objects.all().delete()
    mail = json.load(sys.stdin)
    began = time.monotonic()
    queue(mail, int(size))
    queued = time.monotonic()
    call_command("send_queued_mail", processes=PROCESSES, verbosity=0)
    ended = time.monotonic()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({
        "mails": Email.objects.filter(status=STATUS.sent).count(),
        "seconds": ended - began,
        "queueing_seconds": queued - began,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in usage),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
