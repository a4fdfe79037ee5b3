"""``lifecycle settle``: end doubts by a mail log's proof or a person's verdict; without either, list them."""

from __future__ import annotations

import argparse
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lifecycle_emails.commands.command import (
    Commands,
    actor,
    add_cohort_range,
    add_command,
    check_campaign,
    check_cohort_range,
    ordered,
)
from lifecycle_emails.delivery.postfix_log import PostfixLog
from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.evidence import EvidenceReport, doubts, settle_by_evidence
from lifecycle_emails.ledger.session import Connect, LedgerConnection, ledger_session
from lifecycle_emails.ledger.settling import SettleAs
from lifecycle_emails.order import Action, Order

EPILOG = """\
A mail log proves what it mentions; what it does not mention stays in doubt. What no log proves, a person
decides: ask the provider first. "send-again" is judged again by the next run: suppression, cap and deadline
hold.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    command = add_command(commands, "settle", run, "list the mails in doubt, or settle them")
    command.epilog = EPILOG
    command.add_argument("campaign", metavar="CAMPAIGN", help="the campaign's id")
    command.add_argument(
        "--postfix-log", nargs="+", type=Path, metavar="FILE", help="settle what these logs prove (.gz too)"
    )
    command.add_argument(
        "--log-timezone",
        type=_zone,
        default=ZoneInfo("UTC"),
        metavar="ZONE",
        help="zone of time stamps that do not say theirs; default: UTC",
    )
    command.add_argument(
        "--as", dest="verdict", choices=[verdict.value for verdict in SettleAs], help="what you found out"
    )
    command.add_argument("--user", action="append", metavar="ID", help="this user; may be repeated")
    command.add_argument("--all", action="store_true", help="everybody in doubt in this campaign")
    add_cohort_range(command)
    command.add_argument("--reason", help="how you know; it is kept with your name")


def run(options: argparse.Namespace, connect: Connect) -> str:
    """Settle, or list."""
    check_cohort_range(options)
    named = [options.user is not None, options.cohort_from is not None, options.all]
    if options.postfix_log and (options.verdict or any(named)):
        raise LedgerError("a log settles whatever it proves: give --postfix-log alone; nothing was changed")
    if options.verdict and (sum(named) != 1 or not options.reason):
        raise LedgerError(
            "--as needs --reason, and one of --user, --cohort-from with --cohort-to, and --all; "
            "nothing was changed"
        )
    if any(named) and not options.verdict:
        raise LedgerError("say --as sent or --as send-again; nothing was changed")
    with ledger_session(connect) as ledger:
        check_campaign(ledger, options.campaign)
        if options.postfix_log:
            log = PostfixLog(options.postfix_log, zone=options.log_timezone)
            log.check()
            return _told(settle_by_evidence(ledger, [log], campaign_id=options.campaign, actor=actor(ledger)))
        if not options.verdict:
            return _listed(ledger, options.campaign)
        order = Order(
            Action.SETTLE_AS_SENT if options.verdict == SettleAs.SENT else Action.SETTLE_TO_SEND_AGAIN,
            options.reason,
            options.campaign,
            user_ids=tuple(options.user or ()),
            cohort_from=options.cohort_from,
            cohort_to=options.cohort_to,
            everybody=options.all,
        )
        return ordered(ledger, order)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{name!r} is no time zone; write Europe/Berlin, for example"
        ) from None


def _told(report: EvidenceReport) -> str:
    lines = [
        f"the log proves {report.sent} sent, {report.bounced} bounced; {report.unproven} are still in doubt"
    ]
    if report.contradictions:
        lines.append(
            f"delivered and bounced, so not settled: {', '.join(report.contradictions)}. Look at their lines"
        )
    return "\n".join(lines)


def _listed(ledger: LedgerConnection, campaign_id: str) -> str:
    found = doubts(ledger, campaign_id)
    lines = [
        f"user {doubt.user_id}, cohort {doubt.cohort_date}, Message-ID <{doubt.key}@...>, "
        f"dot allowed {doubt.gate_at.isoformat(timespec='seconds')}, "
        f"answer due {doubt.answer_due.isoformat(timespec='seconds')}"
        for doubt in found
    ]
    return "\n".join(lines) or f"nothing of campaign {campaign_id} is in doubt"
