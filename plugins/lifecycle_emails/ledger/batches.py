"""Batches: joined into groups for mapped tasks, and leased so that two tasks do not do the same work.

Knows the ledger's batches and ready rows. Must not know how a mail is made or sent. A lease only avoids
wasted work; what keeps a user from a second copy is the send's own state at the gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, ledger_transaction, one_row

LEASE_SECONDS = 60
"""A lease runs this long after the last group commit of its holder."""


LONGEST_LABEL = 80
"""Characters in which a group's batches are named one by one."""


@dataclass(frozen=True)
class Group:
    """What one mapped task sends: batches (cohort date, batch number) and their ready users when grouped."""

    batches: tuple[tuple[date, int], ...]
    size: int

    @property
    def label(self) -> str:
        """How the Airflow UI names the mapped task; many batches by their number and days.

        Airflow's database takes 250 characters, and fails the task whose name is longer.
        """
        named = "; ".join(
            f"{day} batch {', '.join(str(batch) for _, batch in batches)}"
            for day, batches in groupby(self.batches, key=lambda batch: batch[0])
        )
        if len(named) > LONGEST_LABEL:
            first, last = self.batches[0][0], self.batches[-1][0]
            days = str(first) if first == last else f"{first} to {last}"
            named = f"{len(self.batches)} batches of {days}"
        return f"{named} ({self.size} users)"

    def as_dict(self) -> dict[str, Any]:
        """For XCom."""
        return {"batches": [[day.isoformat(), batch] for day, batch in self.batches], "size": self.size}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Group:
        """The inverse of `as_dict`."""
        return cls(
            tuple((date.fromisoformat(day), int(batch)) for day, batch in value["batches"]), value["size"]
        )


def ready_groups(
    ledger: LedgerConnection, campaign: Campaign, cohort_dates: Sequence[date], *, max_groups: int
) -> tuple[Group, ...]:
    """Join batches with ready rows into at most ``max_groups`` groups of about the campaign's batch size."""
    arguments = {"campaign": campaign.id, "cohort_dates": list(cohort_dates)}
    rows = ledger.execute(query("ready_batches"), arguments).fetchall()
    total = sum(count for _, _, count in rows)
    # filling up to twice the average can never need more than max_groups groups
    limit = max(campaign.batch_size, -(-2 * total // max_groups))
    return tuple(_join(rows, limit))


def _join(rows: Sequence[tuple[Any, ...]], limit: int) -> Iterator[Group]:
    batches: list[tuple[date, int]] = []
    size = 0
    for cohort_date, batch, count in rows:
        if batches and size + count > limit:
            yield Group(tuple(batches), size)
            batches, size = [], 0
        batches.append((cohort_date, batch))
        size += count
    if batches:
        yield Group(tuple(batches), size)


def take_leases(
    ledger: LedgerConnection, campaign_id: str, group: Group, holder: UUID
) -> tuple[tuple[date, int], ...]:
    """Lease the group's batches that nobody else holds, and return them."""
    arguments = {**batch_arrays(campaign_id, group.batches), "holder": holder, "seconds": LEASE_SECONDS}
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        rows = ledger.execute(query("take_leases"), arguments).fetchall()
    return tuple(sorted((day, batch) for day, batch in rows))


def give_back_leases(ledger: LedgerConnection, campaign_id: str, holder: UUID) -> None:
    """End the holder's leases of this campaign now, so that a retry need not wait for their time."""
    with ledger_transaction(ledger, lock_timeout=10, statement_timeout=30):
        ledger.execute(query("give_back_leases"), {"campaign": campaign_id, "holder": holder})


@dataclass(frozen=True)
class Due:
    """Ready rows of some batches: ``now`` may be sent now, ``later`` wait for ``next_due``."""

    now: int
    later: int
    next_due: datetime | None


def due_rows(ledger: LedgerConnection, campaign_id: str, batches: Sequence[tuple[date, int]]) -> Due:
    """Count what is ready in these batches."""
    return Due(*one_row(ledger.execute(query("count_due"), batch_arrays(campaign_id, batches))))


def due_users(
    ledger: LedgerConnection, campaign_id: str, batches: Sequence[tuple[date, int]]
) -> dict[date, list[str]]:
    """User ids that may be sent now, by cohort date, in order of id."""
    users: dict[date, list[str]] = {}
    for cohort_date, user_id in ledger.execute(query("due_users"), batch_arrays(campaign_id, batches)):
        users.setdefault(cohort_date, []).append(user_id)
    return users


def batch_arrays(campaign_id: str, batches: Sequence[tuple[date, int]]) -> dict[str, Any]:
    """Parameters that name batches as two arrays of equal length."""
    return {
        "campaign": campaign_id,
        "cohort_dates": [day for day, _ in batches],
        "batches": [batch for _, batch in batches],
    }
