"""What a dry run tells people: for each user what would become of the mail, and the sums by cohort.

Renders every mail that would be sent, and sends none. Knows the judged cohorts, audience and templates. Must
not know Airflow, nor where the report is kept.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any
from uuid import NAMESPACE_URL

import psycopg

from lifecycle_emails.address import parse_recipient
from lifecycle_emails.audience import AudienceColumns
from lifecycle_emails.cohort import Cohort
from lifecycle_emails.errors import InvalidAddress, RenderFailed
from lifecycle_emails.ledger.judged_cohorts import JudgedCohorts, JudgedUser, RunToTry, logical_date
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.message_id import message_id

PROFILES_AT_ONCE = 500
NAMED_USERS = 20
"""How many user ids the table names for each number; the CSV names all."""

FIRST_OUTCOMES = ("would_be_sent", "already_sent", "capped", "suppressed", "stale", "invalid_address")
"""Columns that the table always has, in this order; others follow where there are any."""


@dataclass(frozen=True)
class DryRunRow:
    """One user of one cohort. ``logical_date``: of the run, in UTC; ``outcome``: see `outcome_of`."""

    campaign: str
    logical_date: str
    cohort_date: str
    user_id: str
    outcome: str
    reason: str


def dry_run_rows(
    judged: JudgedCohorts, source: psycopg.Connection[Any], templates: dict[str, MessageTemplates]
) -> Iterator[DryRunRow]:
    """Give a row for every user; ``templates`` by campaign id. Memory does not grow with the cohorts.

    Raises ConfigurationError where the audience does not return a variable that a template needs, and
    SourceError where it cannot be read.
    """
    for asked, cohort, users in judged:
        mails = _Mails(asked, cohort, source, templates[asked.campaign.id])
        run = _run(asked, cohort)
        while chunk := list(islice(users, PROFILES_AT_ONCE)):
            failures = mails.failures([user.user_id for user in chunk if user.state == "ready"])
            for user in chunk:
                outcome, reason = failures.get(user.user_id) or outcome_of(user)
                yield DryRunRow(
                    asked.campaign.id, run, cohort.cohort_date.isoformat(), user.user_id, outcome, reason
                )


def outcome_of(user: JudgedUser) -> tuple[str, str]:
    """Name what would become of a judged user, and why.

    ``would_be_sent``; ``already_sent``; a held reason (``capped``, ``suppressed``, ``stale`` and so on); or
    the state of a mail that a run leaves alone (``sending``, ``rejected``, ``in_doubt``);
    ``awaiting_approval`` in a cohort of unusual size.
    """
    if user.state == "ready":
        later = f"not before {user.not_before}: refused for now by the mail server" if user.not_before else ""
        return "would_be_sent", later
    if user.state == "sent":
        return "already_sent", ""
    if user.state == "planned":
        return "awaiting_approval", "the volume breaker holds the cohort back, or would"
    return user.held_reason or user.state, user.detail or ""


def _run(asked: RunToTry, cohort: Cohort) -> str:
    return logical_date(asked.campaign, cohort.cohort_date).isoformat()


class _Mails:
    """Makes the mails of a cohort, to see which cannot be made."""

    def __init__(
        self,
        asked: RunToTry,
        cohort: Cohort,
        source: psycopg.Connection[Any],
        templates: MessageTemplates,
    ) -> None:
        self._asked = asked
        self._cohort = cohort
        self._source = source
        self._templates = templates
        self._columns: AudienceColumns | None = None

    def failures(self, user_ids: list[str]) -> dict[str, tuple[str, str]]:
        """Give outcome and reason of those whose mail cannot be made."""
        if not user_ids:
            return {}
        if self._columns is None:
            self._columns = self._asked.audience.check(self._source, self._cohort)
            self._templates.check_variables(self._columns.variables)
        profiles = self._asked.audience.profiles(self._source, self._cohort, user_ids, self._columns)
        made = ((user_id, self._failure(user_id, profiles.get(user_id))) for user_id in user_ids)
        return {user_id: failure for user_id, failure in made if failure is not None}

    def _failure(self, user_id: str, profile: dict[str, Any] | None) -> tuple[str, str] | None:
        if profile is None:
            return "left_audience", "the audience query no longer returns this user"
        name = message_id(NAMESPACE_URL, self._asked.campaign.id, user_id, self._templates.sender_domain)
        try:
            self._templates.render(profile, parse_recipient(profile["email"]), name, datetime.now(UTC))
        except InvalidAddress as error:
            return "invalid_address", str(error)
        except RenderFailed as error:
            return "render_failed", str(error)
        return None


@dataclass
class DryRunReport:
    """The sums of a dry run, with the first user ids behind each."""

    counts: dict[tuple[str, str, str], Counter[str]] = field(default_factory=dict)
    """By (campaign, logical date, cohort date): users by outcome."""
    named: dict[tuple[str, str, str, str], list[str]] = field(default_factory=dict)
    """By the same and outcome: the first ids."""
    total: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, judged: JudgedCohorts) -> DryRunReport:
        """Begin with a line for each cohort, those without users too."""
        keys = (
            (asked.campaign.id, _run(asked, cohort), cohort.cohort_date.isoformat())
            for asked, cohort in judged.cohorts()
        )
        return cls(counts={key: Counter() for key in keys})

    def add(self, row: DryRunRow) -> None:
        """Count one user."""
        key = (row.campaign, row.logical_date, row.cohort_date)
        self.counts.setdefault(key, Counter())[row.outcome] += 1
        self.total[row.outcome] += 1
        named = self.named.setdefault((*key, row.outcome), [])
        if len(named) < NAMED_USERS:
            named.append(row.user_id)

    def reading(self, rows: Iterable[DryRunRow]) -> Iterator[DryRunRow]:
        """Count rows on their way to somewhere else."""
        for row in rows:
            self.add(row)
            yield row

    def lines(self) -> Iterator[str]:
        """Write the table, then the users behind its numbers."""
        further = sorted(self.total.keys() - set(FIRST_OUTCOMES))
        outcomes = (*FIRST_OUTCOMES, *further)
        table = [("campaign", "logical date", "cohort", *outcomes)]
        table += [
            (campaign, run[:16], day, *(str(counts[outcome]) for outcome in outcomes))
            for (campaign, run, day), counts in self.counts.items()
        ]
        table.append(("all", "", "", *(str(self.total[outcome]) for outcome in outcomes)))
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        for line in table:
            yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for (campaign, run, day, outcome), users in self.named.items():
            more = self.counts[campaign, run, day][outcome] - len(users)
            tail = f" and {more} more" if more else ""
            yield f"{campaign}, cohort {day}, {outcome}: {', '.join(users)}{tail}"

    def as_dict(self) -> dict[str, Any]:
        """Counts only, for XCom and JSON."""
        return {
            "rows": self.total.total(),
            "outcomes": dict(sorted(self.total.items())),
            "cohorts": [
                {"campaign": campaign, "logical_date": run, "cohort_date": day, "outcomes": dict(counts)}
                for (campaign, run, day), counts in self.counts.items()
            ],
        }


def write_csv(rows: Iterable[DryRunRow], file: IO[str]) -> None:
    """Write the rows with their heading; ``file`` is open for text, with ``newline=""`` where it has that."""
    writer = csv.writer(file)
    writer.writerow([column.name for column in fields(DryRunRow)])
    writer.writerows(map(astuple, rows))
