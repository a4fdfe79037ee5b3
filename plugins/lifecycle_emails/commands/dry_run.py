"""``lifecycle dry-run``: who would be mailed, and who not and why, before any mail."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign, load_campaign
from lifecycle_emails.cohort import cohort_date_of
from lifecycle_emails.commands.command import Commands, add_command, add_date_range, checked_range
from lifecycle_emails.commands.source import add_source, open_source
from lifecycle_emails.daily_limit import load_daily_limits
from lifecycle_emails.dry_run_report import DryRunReport, DryRunRow, dry_run_rows, write_csv
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.frequency_cap import load_cap_rules
from lifecycle_emails.freshness import Freshness
from lifecycle_emails.ledger.judged_cohorts import RunToTry, in_order_of_runs, judged_cohorts
from lifecycle_emails.ledger.session import Connect, ledger_session
from lifecycle_emails.message import MessageTemplates

EPILOG = """\
Plans and judges the cohorts in the order of their runs, in a transaction that is rolled back, and renders
every mail. Several campaigns are tried together: what one takes of a user's frequency cap, the next finds
taken. While people are judged, real runs of these campaigns wait, and so does every run's limit_rate.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "dry-run", run, "tell who would be mailed and who not; change nothing")
    command.epilog = EPILOG
    command.add_argument("campaign", nargs="+", metavar="CAMPAIGN", help="ids of campaigns")
    add_date_range(command, "cohort", "cohort date")
    add_date_range(command, "logical", "day of the runs, in the campaign's time zone")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write a row for every user")
    command.add_argument("--json", action="store_true", help="print the sums as JSON")
    add_source(command)


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Judge, render, count."""
    cohorts, runs = checked_range(options, "cohort"), checked_range(options, "logical")
    if (cohorts is None) == (runs is None):
        raise ConfigurationError(
            "give --cohort-from and --cohort-to, or --logical-from and --logical-to; nothing was changed"
        )
    campaigns = [load_campaign(options.include, name) for name in dict.fromkeys(options.campaign)]
    if len({campaign.source_conn_id for campaign in campaigns}) > 1:
        raise ConfigurationError("these campaigns read from different databases; try them one by one")
    now = datetime.now(UTC)
    asked = in_order_of_runs(
        [
            one
            for campaign in campaigns
            for one in _cohorts(options.include, campaign, cohorts or _of_runs(campaign, runs), now)
        ]
    )
    templates = {one.id: MessageTemplates.load(options.include, one) for one in campaigns}
    with ExitStack() as stack:
        ledger = stack.enter_context(ledger_session(connect))
        source = stack.enter_context(open_source(options, campaigns[0].source_conn_id))
        judged = stack.enter_context(judged_cohorts(ledger, source, asked))
        report = DryRunReport.of(judged)
        rows = report.reading(dry_run_rows(judged, source, templates))
        if options.csv is None:
            deque(rows, maxlen=0)
        else:
            _write(options.csv, rows)
    if options.json:
        return json.dumps(report.as_dict())
    return "\n".join(_told(report, judged.elsewhere, options.csv))


def _of_runs(campaign: Campaign, runs: tuple[date, date] | None) -> tuple[date, date]:
    assert runs is not None  # noqa: S101  (one of the two ranges was given)
    offset = timedelta(days=campaign.offset_days)
    return runs[0] - offset, runs[1] - offset


def _cohorts(include: Path, campaign: Campaign, asked: tuple[date, date], now: datetime) -> list[RunToTry]:
    first, last = asked
    newest = cohort_date_of(campaign, now)
    if last > newest:
        raise ConfigurationError(
            f"cohort {last} of {campaign.id} is in the future: its run is on "
            f"{last + timedelta(days=campaign.offset_days)}. The newest is {newest}; nothing was changed"
        )
    audience = Audience.load(include, campaign)
    rules = load_cap_rules(include, campaign.frequency_cap)
    limits = load_daily_limits(include, campaign)
    freshness = Freshness.load(include, campaign)
    days = ((first + timedelta(days=day)) for day in range((last - first).days + 1))
    return [
        RunToTry(campaign, audience, rules, day, daily_limits=limits, freshness=freshness) for day in days
    ]


def _write(path: Path, rows: Iterator[DryRunRow]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            write_csv(rows, file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def _told(report: DryRunReport, elsewhere: int, path: Path | None) -> list[str]:
    lines = [*report.lines()]
    if elsewhere:
        lines.append(f"{elsewhere} users of these audiences stand in another cohort, and stay there")
    lines.append(f"a row for each user: {path}" if path else "--csv FILE names everybody")
    return [*lines, "This was a dry run: nothing was kept, nothing was sent."]
