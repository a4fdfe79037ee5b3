"""Plans cohorts day by day, without Airflow, with the package that the import path leads to.

``python -m reliability.fault_bench.airflow_calendar_play PLAY FOLDER LEDGER SOURCE SEED`` prints as one JSON
object what is wrong, how often a user was mailed at most, and how many were lost. A process of
its own, so that a patched copy of the package can take its place.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from lifecycle_emails.cohort import cohort_date_of
from local_stack.example_app import create_table
from tests.daily_run import DailyRun
from tests.scripted_smtp_server import ScriptedSmtpServer

DAY = timedelta(days=1)
HALF_HOUR = timedelta(minutes=30)
PERIODS = (
    ("UTC", date(2024, 2, 27)),  # a leap day
    ("Europe/Berlin", date(2026, 3, 27)),  # the clocks skip an hour
    ("Europe/Berlin", date(2025, 10, 24)),  # ... or show it twice
    ("America/New_York", date(2024, 11, 1)),
    ("Africa/Cairo", date(2024, 4, 24)),  # the clocks skip midnight
    ("Africa/Cairo", date(2023, 10, 25)),  # ... or show it twice
    ("Pacific/Apia", date(2011, 12, 28)),  # a whole day is skipped
    ("Asia/Kathmandu", date(2026, 1, 1)),
)
"""Zones and first days of four around which time is not as usual. No two periods touch."""
USERS_A_DAY = 4000


class Play:
    """A daily run on a ledger and a source of its own, and what was found wrong with it."""

    def __init__(self, folder: Path, ledger_url: str, source_url: str, seed: str) -> None:
        self.server = ScriptedSmtpServer().start()
        self.rng = random.Random(seed)  # noqa: S311  (a play that can be repeated)
        self.run = DailyRun(folder / "one", ledger_url, source_url, self.server.port)
        self.other = DailyRun(folder / "other", ledger_url, source_url, self.server.port)
        create_table(self.run.source)
        self.problems: list[str] = []
        self.users = 0

    def add_users(self, start: datetime, end: datetime) -> None:
        """Add a user every half hour."""
        while start < end:
            self.users += 1
            self.run.add_users(self.users, created_at=start)
            start += HALF_HOUR

    def calendar(self) -> None:
        """Every user of days of all sorts stands in the cohort of the day on the clocks, and only there."""
        for zone, first in PERIODS:
            clocks = ZoneInfo(zone)
            self.run.include.write_campaign(timezone=zone)
            days = [first + DAY * day for day in range(4)]
            begin, end = (
                datetime.combine(day, datetime.min.time(), clocks).astimezone(UTC)
                for day in (first, first + 4 * DAY)
            )
            self.add_users(begin, end)
            for day in days:
                self.run.extract(day)
            if any(self.run.extract(day).new for day in days):
                self.problems.append(f"{zone} {first}: somebody was planned twice")
        cohorts: dict[str, date] = dict(
            self.run.ledger.execute("SELECT user_id, cohort_date FROM lifecycle.sends").fetchall()
        )
        rows = self.run.source.execute("SELECT user_id, created_at FROM users").fetchall()
        starts = sorted(((first, zone) for zone, first in PERIODS), reverse=True)
        for user_id, created_at in rows:
            zone = next(zone for first, zone in starts if (created_at.date() - first).days >= -1)
            if cohorts.get(str(user_id)) not in {None, created_at.astimezone(ZoneInfo(zone)).date()}:
                self.problems.append(f"{zone} {created_at}: in cohort {cohorts[str(user_id)]}")

    def changes(self) -> None:
        """Hour, zone and offset change, people are corrected and found late: one mail each."""
        today = cohort_date_of(self.run.campaign, datetime.now(UTC))
        first = today - 5 * DAY
        start = datetime.combine(first, datetime.min.time(), UTC)
        self.add_users(start, start + 6 * DAY)
        zones = ["Asia/Tokyo", "America/Los_Angeles", "Europe/Berlin"]
        self.rng.shuffle(zones)
        for day, zone in enumerate(["UTC", *zones, "UTC", "UTC"]):
            schedule = f"{self.rng.randrange(60)} {self.rng.randrange(4)} * * *"
            self.run.include.write_campaign(max_lateness_days=10, timezone=zone, schedule=schedule)
            limited = self.run.plan(first + DAY * day)
            if day == 1:  # corrected between planning and sending: they move on with the next cohort
                self._move(start + DAY * day, every=10)
            self.run.send(limited)
        self._move(start, every=3)  # corrected after they were mailed
        self.add_users(
            start + 4 * DAY + timedelta(minutes=5), start + 4 * DAY + timedelta(hours=3)
        )  # latecomers
        for day in range(6):
            self.run.send(self.run.plan(first + DAY * day, with_earlier=True))
        self.run.include.write_campaign(max_lateness_days=10, offset_days=2)
        newest = cohort_date_of(self.run.campaign, datetime.now(UTC))
        self.run.send(self.run.plan(newest, with_earlier=True))
        missed = self.users - len(self.copies())
        if missed:
            self.problems.append(f"{missed} of {self.users} users were not mailed")

    def two_extracts(self) -> None:
        """Two extracts plan the same cohorts at once, in opposite order, while people move between them."""
        days = [date(2026, 5, 1) + DAY * day for day in range(3)]
        for number, day in enumerate(days):
            self.run.source.execute(
                "INSERT INTO users (user_id, email, full_name, created_at)"
                " SELECT n, n || '@example.com', 'Ada', %s FROM generate_series(%s::int, %s::int) AS n",
                (
                    datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=12),
                    1 + USERS_A_DAY * number,
                    USERS_A_DAY * (number + 1),
                ),
            )
            self.users += USERS_A_DAY
        for _ in range(3):
            self._at_once(
                lambda: [self.run.extract(day) for day in days],
                lambda: [self.other.extract(day) for day in reversed(days)],
            )
            self.run.source.execute(
                "UPDATE users SET created_at = CASE WHEN user_id %% 3 = 0 AND created_at > %(last)s"
                " THEN created_at - interval '2 days' ELSE created_at + interval '1 day' END"
                " WHERE user_id %% 3 = 0 AND (created_at > %(last)s OR created_at < %(last)s)",
                {"last": datetime.combine(days[-1], datetime.min.time(), UTC)},
            )

    def _move(self, start: datetime, *, every: int) -> None:
        """Correct the creation of every so many users of a day by a day."""
        self.run.source.execute(
            "UPDATE users SET created_at = created_at + interval '1 day'"
            " WHERE user_id %% %(every)s = 0 AND created_at >= %(start)s AND created_at < %(end)s",
            {"every": every, "start": start, "end": start + DAY},
        )

    def _at_once(self, *works: Callable[[], object]) -> None:
        together = threading.Barrier(len(works))

        def do(work: Callable[[], object]) -> None:
            together.wait()
            try:
                work()
            except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
                self.problems.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")

        threads = [threading.Thread(target=do, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def copies(self) -> Counter[str]:
        """Accepted mails by user."""
        return Counter(mail.reference[1] for mail in self.server.accepted if mail.reference)

    def findings(self) -> dict[str, object]:
        """What the bench is told."""
        (rows,) = self.run.ledger.execute("SELECT count(*) FROM lifecycle.sends").fetchone() or (0,)
        return {
            "problems": self.problems[:5],
            "max_copies": max(self.copies().values(), default=0),
            "lost": self.users - rows,
        }

    def close(self) -> None:
        """End server and connections."""
        self.run.close()
        self.other.close()
        self.server.stop()


def main(arguments: Sequence[str]) -> None:
    """Play, and print the findings."""
    name, folder, ledger_url, source_url, seed = arguments
    play = Play(Path(folder), ledger_url, source_url, seed)
    try:
        {"calendar": play.calendar, "changes": play.changes, "two_extracts": play.two_extracts}[name]()
        print(json.dumps(play.findings()))
    finally:
        play.close()


if __name__ == "__main__":
    main(sys.argv[1:])
