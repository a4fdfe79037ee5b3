"""Those who send one message over and over and do nothing else: Postfix's smtp-source and bare smtplib."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.contest import Run
from bench.sinks import Sink, postfix_program
from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.delivery.wire import dot_stuffed
from lifecycle_emails.message import MessageTemplates, RenderedMessage
from local_stack.ports import LOOPBACK

SOURCE, LOOP = "smtp-source", "smtplib"
_CONNECTIONS = 32
_LENGTH = 7000


def smtp_source(sink: Sink, size: int) -> Run:
    """Postfix's load generator: 32 connections, 7,000 octets a mail; the practical limit of the wire."""
    program = postfix_program(SOURCE) or ""
    began = time.monotonic()
    subprocess.run(
        [program, "-d", "-s", str(_CONNECTIONS), "-l", str(_LENGTH), "-m", str(size),
         f"{LOOPBACK}:{sink.port}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return Run(size, time.monotonic() - began)


def bare_smtplib(message: RenderedMessage, sink: Sink, size: int, certificate: Path | None = None) -> Run:
    """One connection, one message made before: what a hand-written loop would reach at best."""
    content = dot_stuffed(message.content)
    with smtplib.SMTP(LOOPBACK, sink.port) as client:
        client.ehlo()
        if certificate:
            client.starttls(context=ssl.create_default_context(cafile=certificate))
            client.ehlo()
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(size):
            client.sendmail(message.sender, [message.recipient], content)
        seconds, spent = time.monotonic() - began, time.process_time() - cpu
    return Run(size, seconds, spent / size * 1e6)


def example_message(include: Path, campaign_id: str) -> RenderedMessage:
    """One user's mail of the campaign."""
    templates = MessageTemplates.load(include, load_campaign(include, campaign_id))
    now = datetime.now(UTC)
    profile = {"user_id": 1, "email": "user1@example.com", "full_name": "Ada Example", "created_at": now}
    return templates.render(profile, "user1@example.com", "<bench@example.com>", now)
