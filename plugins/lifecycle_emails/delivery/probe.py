"""Tries a stopped provider with one real mail, and ends the stop when it is accepted.

Knows the sender and the table of stops. Must not know Airflow. The mail is one that is due anyway: it passes
the same gate, which lets only a probe by a stopped provider.
"""

from __future__ import annotations

import logging
import threading

from lifecycle_emails.delivery.sender import SendingTools, send_group
from lifecycle_emails.errors import DeliveryError
from lifecycle_emails.ledger.batches import Group
from lifecycle_emails.ledger.provider import note_probe
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import ledger_session
from lifecycle_emails.ledger.steps import record_step

log = logging.getLogger(__name__)


def probe_provider(tools: SendingTools) -> bool | None:
    """Send one due mail of this campaign through its stopped provider.

    True: accepted, and the provider is no longer stopped. False: it still refuses, or cannot be reached.
    None: the campaign has nobody to mail now, or its throttle gave no turn, so nothing was tried.
    """
    campaign = tools.campaign
    with ledger_session(tools.connect_ledger) as ledger:
        row = ledger.execute(query("batch_to_probe"), {"campaign": campaign.id}).fetchone()
    if row is None:
        return None
    with ledger_session(tools.connect_ledger) as ledger:
        record_step(ledger, campaign.id, [row[0]], "probe", "maintenance")
    try:
        sent = send_group(tools, Group((tuple(row),), 1), stop=threading.Event(), probe=True, at_most=1)
    except DeliveryError as error:
        log.warning("the provider of %s cannot be reached: %s", campaign.smtp_conn_id, error)
        accepted = False
    else:
        if sent.throttled_until is not None:
            log.info("the throttle of %s gave its probe no turn", campaign.smtp_conn_id)
            return None
        accepted = sent.sent > 0
    with ledger_session(tools.connect_ledger) as ledger:
        note_probe(ledger, campaign.smtp_conn_id, accepted=accepted)
    log.info(
        "the provider of %s %s", campaign.smtp_conn_id, "accepts mail again" if accepted else "still refuses"
    )
    return accepted
