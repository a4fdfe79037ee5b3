"""What became of sends in doubt, by the word of somebody who knows: an MTA's log, a mailbox.

Evidence can prove that a mail was accepted, delivered or bounced. It never proves that a mail may be sent
again: the absence of a line proves nothing. Knows named queries and the shape of a proof; must not know where
proofs come from (`delivery.postfix_log` is one source).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import (
    PLANNING_TIMEOUT_SECONDS,
    LedgerConnection,
    ledger_transaction,
    one_row,
)
from lifecycle_emails.message_id import message_key

log = logging.getLogger(__name__)


class Fact(StrEnum):
    """What a source can say of a mail."""

    ACCEPTED = "accepted"
    """The server took it into its queue: it is sent, whatever becomes of it later."""
    DELIVERED = "delivered"
    """It reached the next server or the mailbox."""
    BOUNCED = "bounced"
    """It was accepted, and then refused for good by the recipient's side."""


@dataclass(frozen=True)
class Doubt:
    """A send in doubt. ``key`` is the part of its Message-ID before the @; times are aware, and the ledger's.

    ``queue_id`` is known where the server's answer was read once and the ledger lost it since.
    """

    campaign: str
    cohort_date: date
    user_id: str
    key: UUID
    queue_id: str | None
    gate_at: datetime
    answer_due: datetime


@dataclass(frozen=True)
class Proof:
    """One fact about the mail with this ``key``.

    ``at``: when, by the server's clock, aware; None where the source does not say. ``words``: where this
    stands, for history, without addresses.
    """

    key: UUID
    fact: Fact
    at: datetime | None
    queue_id: str | None
    words: str


class EvidenceSource(Protocol):
    """Somebody who knows what became of mails."""

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        """Give what is known of these doubts, by their keys, in any order.

        Raises LifecycleError when the source cannot be read; then nothing is settled.
        """


@dataclass(frozen=True)
class EvidenceReport:
    """What evidence settled, in users. ``contradictions`` name users of whom two facts exclude each other."""

    sent: int
    bounced: int
    contradictions: tuple[str, ...]
    unproven: int


NOTHING_IN_DOUBT = EvidenceReport(0, 0, (), 0)


def doubts(ledger: LedgerConnection, campaign_id: str | None = None) -> list[Doubt]:
    """All sends in doubt, of one campaign or of all for None, by campaign, cohort and user."""
    (namespace,) = one_row(ledger.execute(query("message_id_namespace")))
    rows = ledger.execute(query("doubts"), {"campaign": campaign_id})
    return [
        Doubt(campaign, day, user_id, message_key(namespace, campaign, user_id), *rest)
        for campaign, day, user_id, *rest in rows
    ]


def settle_by_evidence(
    ledger: LedgerConnection,
    sources: Sequence[EvidenceSource],
    *,
    campaign_id: str | None = None,
    actor: str = "",
    lock_timeout: float = PLANNING_TIMEOUT_SECONDS,
) -> EvidenceReport:
    """Ask every source about every send in doubt and settle what is proven: as ``sent``, or as ``rejected``.

    A bounce with a delivery beside it is a contradiction: it is reported and changes nothing. Whatever is
    not mentioned stays in doubt. Raises LifecycleError when a source cannot be read, and LockNotAvailable
    when a plan held the cap's lock for ``lock_timeout`` seconds; nothing was settled.
    """
    wanted = {doubt.key: doubt for doubt in doubts(ledger, campaign_id)}
    if not wanted or not sources:
        return EvidenceReport(0, 0, (), len(wanted))
    proofs: dict[UUID, dict[Fact, Proof]] = {}
    for source in sources:
        for proof in source.prove(wanted):
            known = proofs.setdefault(proof.key, {})
            known[proof.fact] = _earlier(known.get(proof.fact, proof), proof)
    contradictions = tuple(
        f"{wanted[key].campaign}/{wanted[key].user_id}"
        for key, facts in sorted(proofs.items())
        if {Fact.DELIVERED, Fact.BOUNCED} <= facts.keys()
    )
    settled = _record(ledger, wanted, proofs, actor, lock_timeout)
    if contradictions:
        log.warning("delivered and bounced, so nothing was settled: %s", ", ".join(contradictions))
    sent, bounced = settled.count("sent"), settled.count("rejected")
    return EvidenceReport(sent, bounced, contradictions, len(wanted) - sent - bounced - len(contradictions))


def _earlier(one: Proof, other: Proof) -> Proof:
    if one.at is None or (other.at is not None and other.at < one.at):
        return other
    return one


def _record(
    ledger: LedgerConnection,
    wanted: Mapping[UUID, Doubt],
    proofs: Mapping[UUID, dict[Fact, Proof]],
    actor: str,
    lock_timeout: float,
) -> list[str]:
    """Write the verdicts, each only where the row is still in doubt; return the states they came to."""
    verdicts = []
    for key, facts in proofs.items():
        if {Fact.DELIVERED, Fact.BOUNCED} <= facts.keys():
            continue
        bounce = facts.get(Fact.BOUNCED)
        proof = bounce or facts.get(Fact.ACCEPTED) or facts[Fact.DELIVERED]
        verdicts.append((wanted[key], "rejected" if bounce else "sent", proof))
    verdicts.sort(key=lambda verdict: (verdict[0].campaign, verdict[0].user_id))
    arguments = {
        "campaigns": [doubt.campaign for doubt, _, _ in verdicts],
        "user_ids": [doubt.user_id for doubt, _, _ in verdicts],
        "states": [state for _, state, _ in verdicts],
        "times": [proof.at for _, _, proof in verdicts],
        "queue_ids": [proof.queue_id for _, _, proof in verdicts],
        "details": [proof.words for _, _, proof in verdicts],
    }
    with ledger_transaction(
        ledger,
        actor=actor or "evidence",
        lock_timeout=lock_timeout,
        statement_timeout=PLANNING_TIMEOUT_SECONDS,
    ):
        ledger.execute(query("lock_frequency_cap"))
        return [row[0] for row in ledger.execute(query("settle_by_evidence"), arguments)]
