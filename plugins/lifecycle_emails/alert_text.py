"""Alerts in words: one subject, a plain text and an HTML body for each kind of alert.

Knows what the facts of each kind mean. Must not know Airflow, SQL or how a message is delivered. It names
user ids, never addresses; whatever came from data is escaped in HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lifecycle_emails.ledger.alerts import Alert


@dataclass(frozen=True)
class AlertText:
    """A message for the team: ``subject`` is one line, ``text`` and ``html`` say the same."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class _Content:
    subject: str
    paragraphs: list[str]
    facts: list[tuple[str, str]]
    what_to_do: str
    rows_title: str = ""
    rows: list[str] = field(default_factory=list)


def alert_text(alert: Alert, *, where: str = "") -> AlertText:
    """Put an alert into words. ``where`` says where to look: the link of the run in the Airflow UI."""
    content = _CONTENT[alert.kind](alert)
    facts = [*content.facts, ("Recorded", alert.created_at.isoformat(timespec="seconds"))]
    if alert.run:
        facts.append(("Run", alert.run))
    values = {**vars(content), "facts": facts, "where": where, "alert_id": alert.alert_id}
    templates = _templates()
    return AlertText(
        subject=content.subject,
        text=templates.get_template("alert.txt.j2").render(values),
        html=templates.get_template("alert.html.j2").render(values),
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("lifecycle_emails", "alert_templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
    )


def _limit_exceeded(alert: Alert) -> _Content:
    facts = alert.facts
    rules = [
        f"{rule['rule']}: at most {rule['max_sends']} in {_duration(rule['window_seconds'])} "
        f"({_users(rule['users'])} at that limit)"
        for rule in facts["rules"]
    ]
    what_follows = (
        "They are held as capped, and judged again by each scheduled run until the deadline of their cohort."
        if facts["on_cap"] == "defer"
        else "They are held as capped, and this campaign drops them: they will not get this mail."
    )
    return _Content(
        subject=f"Frequency cap reached: {_users(facts['users'])} in {alert.campaign}",
        paragraphs=[
            (
                f"Campaign {alert.campaign} would have mailed {_users(facts['users'])} more often than the "
                f"frequency cap allows. {what_follows} Whoever is not over the cap is mailed as planned."
            )
        ],
        facts=[
            ("Campaign", str(alert.campaign)),
            ("Cohort", ", ".join(facts["cohort_dates"])),
            ("Rule", "; ".join(rules)),
            ("User ids", _named(facts)),
        ],
        rows_title="The sends that fill the window",
        rows=[_window(user_id, facts["sends_in_window"].get(user_id, [])) for user_id in facts["user_ids"]],
        what_to_do=(
            "nothing, if the cap is right. If a user should not be in both campaigns, mend an audience; if "
            "the cap is too tight, change it in include/frequency_caps.yaml."
        ),
    )


def _in_doubt(alert: Alert) -> _Content:
    return _Content(
        subject=f"In doubt: {_users(alert.facts['users'])} of {alert.campaign}",
        paragraphs=[
            (
                f"{_users(alert.facts['users'])} may or may not have got the mail of campaign "
                f"{alert.campaign}: the final dot was committed and no readable answer came back. Nobody is "
                "mailed again by itself."
            )
        ],
        facts=[
            ("Campaign", str(alert.campaign)),
            ("Cohort", ", ".join(alert.facts["cohort_dates"])),
            ("User ids", _named(alert.facts)),
        ],
        what_to_do=(
            f"lifecycle settle {alert.campaign} lists their Message-IDs; look for them in the provider's "
            "log. The same command settles them, by a Postfix log or as you decide."
        ),
    )


def _missing_cohorts(alert: Alert) -> _Content:
    days = alert.facts["cohort_dates"]
    return _Content(
        subject=f"Never planned: {len(days)} cohort{'s' if len(days) != 1 else ''} of {alert.campaign}",
        paragraphs=[
            (
                f"No run of campaign {alert.campaign} planned the users created on these days, though it was "
                "due. Was the DAG paused, or the scheduler down?"
            )
        ],
        facts=[("Campaign", str(alert.campaign)), ("Cohorts", ", ".join(days))],
        what_to_do=(
            "unpause the DAG: its next scheduled run takes them along. What is past its deadline is held as "
            "stale and mailed to nobody."
        ),
    )


def _expired(alert: Alert) -> _Content:
    cohorts = alert.facts["cohort_dates"].items()
    return _Content(
        subject=f"Not mailed in time: {_users(alert.facts['users'])} of {alert.campaign}",
        paragraphs=[
            (
                f"{_users(alert.facts['users'])} of campaign {alert.campaign} were not mailed before the "
                "deadline of their cohort: no run came, sending was halted, the mail server refused them for "
                "now until the end, the size of the cohort was not approved, or a run's own shorter deadline "
                "held them. They are held as stale; nothing mails them by itself."
            )
        ],
        facts=[
            ("Campaign", str(alert.campaign)),
            ("Cohorts (users)", ", ".join(f"{day} ({users})" for day, users in cohorts)),
        ],
        what_to_do=(
            "find out why: was the DAG paused, or sending halted? lifecycle why USER says what the mail "
            f"server answered. If the mail is still worth it, lifecycle extend {alert.campaign} gives these "
            "cohorts more time."
        ),
    )


def _provider_stopped(alert: Alert) -> _Content:
    return _Content(
        subject=f"Sending stopped: {alert.facts['smtp_conn_id']} refuses too much",
        paragraphs=[
            (
                f"The SMTP provider of connection {alert.facts['smtp_conn_id']} is stopped for every campaign"
                f": {alert.facts['reason']}. That many recipients are hardly all wrong, so nobody was marked "
                "rejected; the mails wait, ready."
            )
        ],
        facts=[("SMTP connection", alert.facts["smtp_conn_id"]), ("Reason", alert.facts["reason"])],
        what_to_do=(
            "ask the provider why. The maintenance DAG probes it with one mail at a time and resumes sending "
            "by itself once one is accepted."
        ),
    )


def _ledger_went_back(alert: Alert) -> _Content:
    return _Content(
        subject="All sending is halted: the ledger may have gone back in time",
        paragraphs=[
            (
                f"The sends ledger is not the one it was: {alert.facts['finding']}. A restored backup or a "
                "standby that lacks commits has forgotten what was sent and would send it again."
            )
        ],
        facts=[("Finding", alert.facts["finding"])],
        what_to_do=(
            "find out from when on the ledger's memory is missing. Give again what was ordered since then "
            "(suppressions, halts), then run lifecycle restored --since TIME. Whoever may have been mailed "
            "since is in doubt then; the mail server's log settles it. After a planned move: --nothing-lost."
        ),
    )


def _witness_forgot(alert: Alert) -> _Content:
    return _Content(
        subject="A witness of the ledger has no memory",
        paragraphs=[
            (
                "The witness that LIFECYCLE_WITNESS names remembered nothing, though the sends ledger has "
                f"made marks, the newest at {alert.facts['newest_mark']}. A new worker, path or volume "
                "begins so. A witness that was lost cannot tell whether the ledger went back in time "
                "meanwhile. Sending goes on, and it remembers from now on; this is told once a day at most."
            )
        ],
        facts=[("Newest mark", alert.facts["newest_mark"])],
        what_to_do=(
            "if nothing was newly set up, find out why the file or table was gone, and whether the ledger "
            "was put back with it: then lifecycle halt, and lifecycle restored --since TIME. If every new "
            "worker begins with an empty witness, keep it on storage that outlives them, or in a second "
            "database."
        ),
    )


_CONTENT: dict[str, Callable[[Alert], _Content]] = {
    "limit_exceeded": _limit_exceeded,
    "in_doubt": _in_doubt,
    "expired": _expired,
    "missing_cohorts": _missing_cohorts,
    "provider_stopped": _provider_stopped,
    "ledger_went_back": _ledger_went_back,
    "witness_forgot": _witness_forgot,
}


def _users(count: int) -> str:
    return f"{count} user{'s' if count != 1 else ''}"


def _named(facts: dict[str, Any]) -> str:
    unnamed = facts["users"] - len(facts["user_ids"])
    return ", ".join(facts["user_ids"]) + (f" and {unnamed} more" if unnamed else "")


def _window(user_id: str, sends: list[dict[str, Any]]) -> str:
    listed = "; ".join(
        f"{send['campaign']} {send['state']}" + (f" at {send['at'][:16]}" if send["at"] else "")
        for send in sends
    )
    return f"user {user_id}: {listed or 'a send of this campaign'}"


def _duration(seconds: int) -> str:
    window = timedelta(seconds=seconds)
    if window.seconds == 0:
        return f"{window.days} days" if window.days != 1 else "1 day"
    hours = seconds / 3600
    return f"{hours:g} hours"
