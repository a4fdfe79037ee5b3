"""A campaign of a test's own with users, ledger and SMTP server, and the steps of its daily run without Airflow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.daily_limit import load_daily_limits
from lifecycle_emails.delivery.sender import SendingTools, Sent, send_group
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import Limited, filter_ledger, limit_rate
from lifecycle_emails.ledger.planning import Extracted, extract_cohort
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.throttle import Throttle
from tests.factories import IncludeFolder

NO_CAP = (CapRule("no_cap", 1000, timedelta(days=1)),)


def today() -> date:
    """The cohort whose mail is due today: created four days ago, so that no deadline is near."""
    return (datetime.now(UTC) - timedelta(days=4)).date()


class DailyRun:
    """The steps of a daily run of campaign ``welcome``, on real databases and against a real SMTP server."""

    def __init__(
        self, root: Path, ledger_url: str, source_url: str, smtp_port: int, **campaign_fields: Any
    ) -> None:
        self.include = IncludeFolder(root)
        self.include.write_campaign(**campaign_fields)
        self.include.write(
            "templates/welcome/body.txt.j2", "Hello {{ full_name }}\nReference: welcome/{{ user_id }}\n"
        )
        self.include.write(
            "templates/welcome/body.html.j2",
            "<p>Hello {{ full_name }}</p><p>Reference: welcome/{{ user_id }}</p>\n",
        )
        self.ledger = psycopg.connect(ledger_url, autocommit=True)
        self.source = psycopg.connect(source_url, autocommit=True)
        self.ledger_url = ledger_url
        self.source_url = source_url
        self.smtp = SmtpSettings("127.0.0.1", smtp_port, security="none", dot_timeout=10)
        self.stop = threading.Event()
        self.throttle: Throttle | None = None

    def close(self) -> None:
        """Close the test's own connections."""
        self.ledger.close()
        self.source.close()

    @property
    def campaign(self) -> Campaign:
        """The campaign as its file says now."""
        return load_campaign(self.include.path, "welcome")

    @property
    def audience(self) -> Audience:
        """Its audience."""
        return Audience.load(self.include.path, self.campaign)

    @property
    def tools(self) -> SendingTools:
        """What a batch is sent with."""
        return SendingTools(
            campaign=self.campaign,
            audience=self.audience,
            templates=MessageTemplates.load(self.include.path, self.campaign),
            smtp=self.smtp,
            connect_ledger=lambda: psycopg.connect(self.ledger_url),
            connect_source=lambda: psycopg.connect(self.source_url),
            throttle=self.throttle,
        )

    def add_users(self, *user_ids: int, day: date | None = None, **columns: Any) -> None:
        """Users created at noon UTC of ``day`` (of the cohort that is due today)."""
        created_at = datetime.combine(day or today(), datetime.min.time(), UTC) + timedelta(hours=12)
        values = {"full_name": "Ada Example", "created_at": created_at, **columns}
        names = ", ".join(("user_id", "email", *values.keys() - {"email"}))
        for user_id in user_ids:
            row = {"email": f"user{user_id}@example.com", **values, "user_id": user_id}
            marks = ", ".join(f"%({name})s" for name in names.split(", "))
            self.source.execute(f"INSERT INTO users ({names}) VALUES ({marks})", row)

    def extract(self, cohort_date: date | None = None, *, with_earlier: bool = False) -> Extracted:
        """The first step."""
        return extract_cohort(
            self.ledger,
            self.source,
            self.campaign,
            self.audience,
            cohort_date or today(),
            with_earlier=with_earlier,
        )

    def plan(
        self,
        cohort_date: date | None = None,
        *,
        rules: Sequence[CapRule] = NO_CAP,
        with_earlier: bool = False,
    ) -> Limited:
        """The steps up to groups to send."""
        dates = self.extract(cohort_date, with_earlier=with_earlier).cohort_dates
        filter_ledger(self.ledger, self.campaign, dates)
        return limit_rate(
            self.ledger,
            self.campaign,
            rules,
            dates,
            callbacks=(),
            run="test",
            max_groups=1024,
            daily_limits=load_daily_limits(self.include.path, self.campaign),
        )

    def send(self, limited: Limited) -> list[Sent]:
        """Send every group, one after another."""
        return [send_group(self.tools, group, stop=self.stop) for group in limited.groups]

    def states(self) -> dict[str, str]:
        """State of every user, with the reason behind a slash for the held."""
        rows = self.ledger.execute(
            "SELECT user_id, concat_ws('/', state::text, held_reason::text) FROM lifecycle.sends ORDER BY user_id"
        )
        return dict(rows.fetchall())
