"""Does a run add up? Every user of its cohorts in a state with a reason, nothing due left, nobody forgotten.

The last step of the daily run. Knows named queries and how to show their figures to people. Must not know
Airflow; the glue adds what only Airflow knows (a sibling task that failed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.ledger.alerts import NAMED_USERS, undelivered_alerts
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, one_row
from lifecycle_emails.ledger.throttle import ThrottleNow, throttle_now
from lifecycle_emails.ledger.upkeep import sweep

HELD_REASONS = (
    "suppressed", "capped", "stale", "invalid_address", "left_audience", "render_failed", "daily_limit",
)  # fmt: skip
STATES = ("planned", "ready", "sending", "sent", "held", "rejected", "in_doubt")


@dataclass(frozen=True)
class Reconciliation:
    """The sums of a run.

    ``waiting_until``: an answer may still come until then; None when nothing is awaited. ``problems``: why
    the run is not done, each with what to do; empty when all is well. ``table``: the figures for people.
    ``counts``: users by state, and by held reason under ``held``.
    """

    waiting_until: datetime | None
    problems: tuple[str, ...]
    table: str
    counts: dict[str, Any]

    @property
    def held(self) -> dict[str, int]:
        """Users held, by every reason there is."""
        return {**dict.fromkeys(HELD_REASONS, 0), **self.counts["held"]}


def reconcile(
    ledger: LedgerConnection, campaign: Campaign, cohort_dates: Sequence[date], *, throttled: bool = False
) -> Reconciliation:
    """Add up these cohorts. Moves answers that are overdue to in_doubt first, and changes nothing else.

    ``throttled``: whether the campaign's SMTP connection has a throttle. The ledger remembers one that is no
    more, and only the file says that it is gone.
    """
    sweep(ledger, campaign.id, cohort_dates)
    arguments = {
        "campaign": campaign.id,
        "cohort_dates": list(cohort_dates),
        "smtp_conn_id": campaign.smtp_conn_id,
        "most": NAMED_USERS,
    }
    awaited = ledger.execute(query("answers_awaited"), arguments).fetchone()
    rows = ledger.execute(query("states_by_cohort"), arguments).fetchall()
    audiences = ledger.execute(query("cohort_audiences"), arguments).fetchall()
    throttle = throttle_now(ledger, campaign.smtp_conn_id) if throttled else None
    planned, due, later, again_until, deadline = one_row(ledger.execute(query("open_rows"), arguments))
    lines = [_table(campaign.id, rows, audiences)]
    if later:
        lines.append(
            f"{later} users were refused for now and are due again, the last at "
            f"{again_until:%Y-%m-%d %H:%M %Z}; a later scheduled run takes them before their deadline, "
            f"{deadline:%Y-%m-%d %H:%M %Z}"
        )
    if throttle:
        lines.append(throttle.words(campaign.smtp_conn_id))
    return Reconciliation(
        waiting_until=awaited[0] if awaited else None,
        problems=tuple(_problems(ledger, campaign, arguments, audiences, throttle, planned=planned, due=due)),
        table="\n".join(lines),
        counts=_counts(rows),
    )


def _problems(
    ledger: LedgerConnection,
    campaign: Campaign,
    arguments: dict[str, Any],
    audiences: Sequence[tuple[Any, ...]],
    throttle: ThrottleNow | None,
    *,
    planned: int,
    due: int,
) -> list[str]:
    problems = []
    stops = [row[0] for row in ledger.execute(query("sending_stopped"), arguments)]
    left_for_tomorrow = (
        throttle is not None and throttle.day_is_used_up
    )  # a later run takes them, as configured
    if due and (stops or not left_for_tomorrow):
        why = "; ".join(stops) or "a send_batch task did not finish"
        if not stops and throttle is not None and throttle.daily_maximum is not None:
            why += ", or it left them to the throttle's next day, which has begun"
        problems.append(
            f"{due} users are ready and were not mailed: {why}. Then clear send_batch of this run"
        )
    if planned:
        problems.append(
            f"{planned} users were not judged: limit_rate did not finish. Clear it and what follows"
        )
    problems += [
        f"cohort {day} awaits approval ({words}). Answer approve_volume of the run that asks, or clear "
        "check_volume of this run with what follows to be asked again"
        for day, _, _, verdict, words, *_ in audiences
        if verdict == "awaiting_approval"
    ]
    forgotten = sum(without_row or 0 for _, _, without_row, *_ in audiences)
    if forgotten:
        problems.append(f"{forgotten} users of the audience have no row in the ledger; clear extract_cohort")
    doubtful = [row[0] for row in ledger.execute(query("users_in_doubt"), arguments)]
    if doubtful:
        problems.append(
            f"in doubt, and never mailed again by themselves: users {', '.join(doubtful)}"
            f"{' and more' if len(doubtful) == NAMED_USERS else ''}. Look into the provider's log, settle "
            f"them (lifecycle settle {campaign.id} lists them), then clear this task"
        )
    problems += [
        f"alert {alert.alert_id} ({alert.kind}) could not be delivered; mend its callback, then clear alert"
        for alert in undelivered_alerts(ledger, campaign.id)
        if alert.kind == "limit_exceeded"  # the other kinds are for maintenance to deliver
    ]
    return problems


def _counts(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(STATES, 0)
    held: dict[str, int] = {}
    for _, state, reason, count in rows:
        counts[state] += count
        if reason:
            held[reason] = held.get(reason, 0) + count
    return {**counts, "held": held, "users": sum(count for *_, count in rows)}


def _table(campaign_id: str, rows: Sequence[tuple[Any, ...]], audiences: Sequence[tuple[Any, ...]]) -> str:
    header = ("cohort", "audience", "volume", "users", *STATES, "held because")
    lines = [header]
    for cohort_date, size, _, verdict, *_ in audiences:
        mine = [row for row in rows if row[0] == cohort_date]
        by_state = {state: sum(row[3] for row in mine if row[1] == state) for state in STATES}
        reasons = ", ".join(f"{row[3]} {row[2]}" for row in mine if row[2])
        lines.append((
            cohort_date.isoformat(), "-" if size is None else str(size), verdict or "-",
            str(sum(by_state.values())), *(str(by_state[state]) for state in STATES), reasons or "-",
        ))  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    body = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    decided = [
        f"Cohort {day} was {verdict} by {decided_by} ({words}): {reason}"
        for day, _, _, verdict, words, decided_by, reason in audiences
        if decided_by is not None
    ]
    return "\n".join([f"Campaign {campaign_id}, users by cohort and state", *body, *decided])
