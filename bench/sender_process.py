"""One sender of the benchmark: `python -m ... INCLUDE LEDGER SOURCE SMTP_PORT [SMTP_CERTIFICATE]`.

With the server's certificate it sends after STARTTLS, else in the clear.

Reads one group of batches a line from standard input, as JSON, and answers each with a line of JSON: what was
sent, when it began and ended, and what this process spent.
"""

from __future__ import annotations

import cProfile
import json
import os
import resource
import ssl
import sys
import threading
import time
from pathlib import Path

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.delivery.sender import SendingTools, send_group
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.ledger.batches import Group
from lifecycle_emails.message import MessageTemplates


def main(include: str, ledger_url: str, source_url: str, port: str, certificate: str = "") -> None:
    """Send group after group until standard input ends."""
    folder = Path(include)
    campaign = load_campaign(folder, "bench")
    tools = SendingTools(
        campaign=campaign,
        audience=Audience.load(folder, campaign),
        templates=MessageTemplates.load(folder, campaign),
        smtp=SmtpSettings(
            "127.0.0.1",
            int(port),
            security="starttls" if certificate else "none",
            tls_context=ssl.create_default_context(cafile=certificate) if certificate else None,
        ),
        connect_ledger=lambda: psycopg.connect(ledger_url),
        connect_source=lambda: psycopg.connect(source_url),
    )
    print("ready", flush=True)
    for line in sys.stdin:
        group = Group.from_dict(json.loads(line))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.monotonic(), time.process_time()
        profile = cProfile.Profile(time.thread_time) if os.environ.get("BENCH_PROFILE") else None
        if profile:
            profile.enable()
        sent = send_group(tools, group, stop=threading.Event())
        if profile:
            profile.disable()
            profile.dump_stats(f"{os.environ['BENCH_PROFILE']}.{os.getpid()}")
        ended = time.monotonic()
        answer = {
            "sent": sent.sent,
            "began": began,
            "ended": ended,
            "cpu": time.process_time() - cpu,
            "memory_before": memory,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
