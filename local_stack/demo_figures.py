"""What the demo counts, and which promises these figures keep or break.

What was accepted is counted at the SMTP catcher; who should get the backfill is counted in the example
application's own table, by SQL that shares nothing with the package.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from lifecycle_emails.frequency_cap import CapRule, load_cap_rules
from local_stack.airflow_environment import APP_DATABASE, LEDGER_DATABASE
from local_stack.mail_store import MailStore, Search
from local_stack.stack import CAMPAIGNS, LocalStack

OFFSET_DAYS = 4
LATENESS_DAYS = 3

# Counted apart from the package: in the window, takes mail, can be written to, its name fits a subject line,
# not suppressed, and not just mailed by the other campaign: the cap of one mail per 20 hours holds those.
_EXPECTED_BACKFILL = r"""
SELECT count(*)
FROM users
WHERE created_at >= %(start)s AND created_at < %(end)s
  AND NOT email_opt_out
  AND email ~ '^[^\s@<>,;:"()]{1,64}@[^\s@<>,;:"()]+\.[^\s@<>,;:"()]+$'
  AND full_name !~ '[\x01-\x1f\x7f]'
  AND NOT user_id::text = ANY (%(suppressed)s)
  AND NOT user_id::text = ANY (%(mailed)s)
"""
_STATES = """
SELECT campaign, cohort_date::text, state::text, coalesce(held_reason::text, ''), count(*)
FROM lifecycle.sends GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
_SUPPRESSED = "SELECT user_id FROM lifecycle.suppressions WHERE lifted_at IS NULL AND user_id IS NOT NULL"


@dataclass(frozen=True)
class Figures:
    """Counts of users and mails at one moment. ``caught`` counts campaign mails at the catcher."""

    users: int
    sent: int
    held: int
    rejected: int
    in_doubt: int
    capped: int
    caught: int
    max_copies: int
    max_per_user: int
    cap: int
    alerts: int
    cap_broken_by: str
    campaigns_differ: str
    expected_backfill: int
    table: str
    rerun_sent: int = 0
    backfill_sent: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, int | float]:
        """Give the figures of the demo's last line."""
        names = (
            "users", "sent", "held", "rejected", "in_doubt", "max_copies", "max_per_user", "cap", "capped",
            "alerts", "rerun_sent", "backfill_sent", "seconds",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def broken_promises(self) -> list[str]:
        """Say which promises these figures break; none when all is well."""
        promises = {
            "users = sent + held + rejected + in_doubt": self.users
            == self.sent + self.held + self.rejected + self.in_doubt,
            "somebody was sent the mail": self.sent > 0,
            "the backfill sent something": self.backfill_sent > 0,
            f"the backfill sent the {self.expected_backfill} users that SQL expects": self.backfill_sent
            == self.expected_backfill,
            "nobody got a second copy": self.max_copies == 1,
            f"no cap rule is broken {self.cap_broken_by}": not self.cap_broken_by,
            "somebody was capped": self.capped > 0,
            "an alert arrived in the inbox": self.alerts >= 1,
            "running a day again and clearing it sends nothing": self.rerun_sent == 0,
            "nothing is in doubt": self.in_doubt == 0,
            f"ledger and catcher agree {self.campaigns_differ}": not self.campaigns_differ,
        }
        return [promise for promise, kept in promises.items() if not kept]


def read_figures(stack: LocalStack, backfilled_before: datetime | None = None) -> Figures:
    """Count now. ``backfilled_before``: the tick before which a backfill took its cohorts."""
    store = MailStore(stack.settings.mails)
    rules = load_cap_rules(stack.settings.project / "include", "default")
    with psycopg.connect(stack.postgres.url(LEDGER_DATABASE)) as ledger:
        rows = ledger.execute(_STATES).fetchall()
        suppressed = [row[0] for row in ledger.execute(_SUPPRESSED)]
    copies = store.copies()
    per_user = Counter[str]()
    for (_, user_id), count in copies.items():
        per_user[user_id] += count
    states = Counter[str]()
    for _, _, state, _, count in rows:
        states[state] += count
    return Figures(
        users=states.total(),
        sent=states["sent"],
        held=states["held"],
        rejected=states["rejected"],
        in_doubt=states["in_doubt"],
        capped=sum(row[4] for row in rows if row[3] == "capped"),
        caught=sum(copies.values()),
        max_copies=max(copies.values(), default=0),
        max_per_user=max(per_user.values(), default=0),
        cap=min(rule.max_sends for rule in rules),
        alerts=store.count(Search(alerts_only=True)),
        cap_broken_by=_cap_broken_by(store, rules),
        campaigns_differ=_difference(store, rows),
        expected_backfill=_expected_backfill(
            stack,
            suppressed,
            [user for campaign, user in copies if campaign == CAMPAIGNS[1]],
            backfilled_before,
        ),
        table=_table(rows),
    )


def _cap_broken_by(store: MailStore, rules: tuple[CapRule, ...]) -> str:
    times: dict[str, list[datetime]] = defaultdict(list)
    for user_id, _, at in store.times():
        times[user_id].append(at)
    for user_id, arrivals in times.items():
        for rule in rules:
            for first, beyond in zip(arrivals, arrivals[rule.max_sends :], strict=False):
                if beyond - first < rule.window:
                    return f"(user {user_id} breaks {rule.name})"
    return ""


def _difference(store: MailStore, rows: list[tuple[Any, ...]]) -> str:
    caught = store.campaigns()
    for campaign in CAMPAIGNS:
        sent = sum(row[4] for row in rows if row[0] == campaign and row[2] == "sent")
        if sent != caught.get(campaign, 0):
            return f"({campaign}: {sent} sent, {caught.get(campaign, 0)} caught)"
    return ""


def _expected_backfill(
    stack: LocalStack, suppressed: list[str], mailed: list[str], before: datetime | None
) -> int:
    if before is None:
        return 0
    expected = 0
    with psycopg.connect(stack.postgres.url(APP_DATABASE)) as app:
        for back in range(1, LATENESS_DAYS + 1):
            tick = before - timedelta(days=back)
            if tick + timedelta(days=LATENESS_DAYS) <= datetime.now(UTC):
                continue
            day = datetime.combine(tick.date() - timedelta(days=OFFSET_DAYS), datetime.min.time(), UTC)
            window = {
                "start": day,
                "end": day + timedelta(days=1),
                "suppressed": suppressed,
                "mailed": mailed,
            }
            row = app.execute(_EXPECTED_BACKFILL, window).fetchone()
            expected += row[0] if row else 0
    return expected


def _table(rows: list[tuple[Any, ...]]) -> str:
    """Say for each campaign and cohort how many users are in which state, and why the held are."""
    by_cohort: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for campaign, cohort_date, state, reason, count in rows:
        by_cohort[campaign, cohort_date][reason or state] += count
    columns = sorted({name for counts in by_cohort.values() for name in counts} - {"sent"})
    header = ["campaign", "cohort", "users", "sent", *columns]
    lines = [
        [campaign, cohort, str(counts.total()), *(str(counts[name] or "-") for name in ("sent", *columns))]
        for (campaign, cohort), counts in sorted(by_cohort.items())
    ]
    widths = [max(len(line[at]) for line in (header, *lines)) for at in range(len(header))]
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, *lines)
    ]
    return "\n" + "\n".join(text)
