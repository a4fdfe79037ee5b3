"""One mail of a campaign to somebody who tests it: true text, subject marked, outside the ledger's sends.

Knows audience, templates, SMTP and the audit. It passes no gate: no send is written, no cap slot taken, and a
halt does not stop it, since a mended template is looked at before sending goes on. As with the gate, the dot
is written after the audit's commit, so a run that is repeated sends no second one.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg

from lifecycle_emails.address import parse_recipient
from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import Cohort, cohort_date_of, natural_cohort
from lifecycle_emails.delivery.mails import SendingTools
from lifecycle_emails.delivery.reply import Outcome, Verdict
from lifecycle_emails.delivery.smtp_session import SmtpSession
from lifecycle_emails.errors import DeliveryError, SourceError
from lifecycle_emails.ledger.actions import Actor, Done, begin_action, end_action
from lifecycle_emails.ledger.session import LedgerConnection, ledger_session
from lifecycle_emails.message import RenderedMessage
from lifecycle_emails.operation import check_order, kept_arguments
from lifecycle_emails.order import Order
from lifecycle_emails.preview import any_day

SUBJECT_MARK = "[test] "
EXAMPLE_DAYS = 14
"""An example user is looked for in so many of the newest cohorts."""


def send_test(
    tools: SendingTools,
    order: Order,
    recipient: str,
    actor: Actor,
    campaigns: Collection[str],
    *,
    now: datetime,
) -> Done:
    """Send the campaign's mail, as the ordered user would get it, to ``recipient``.

    Without a user in ``order``, an example is taken: the first user of the newest cohort that has one.
    Nothing is written down before the server has taken the body; from the audit's commit on, it is not
    repeated. Raises LifecycleError when the mail cannot be made, or the server does not accept it.
    """
    with ledger_session(tools.connect_ledger) as ledger, closing(SmtpSession(tools.smtp)) as session:
        check_order(ledger, order, campaigns)
        message = _rendered(tools, order, parse_recipient(recipient), now)
        session.open()
        refused = session.offer(message)
        if refused is not None:
            raise DeliveryError(f"{_told(refused)}. Nothing was changed")
        begun = begin_action(ledger, order, actor, kept_arguments(ledger, order))
        if isinstance(begun, Done):
            session.withdraw()
            return begun
        return _finished(ledger, session, begun)


def _finished(ledger: LedgerConnection, session: SmtpSession, action_id: int) -> Done:
    outcome = session.finish()
    result = _told(outcome)
    end_action(ledger, action_id, result)
    if outcome.verdict is not Verdict.SENT:
        raise DeliveryError(f"{result}. It is not repeated; order a new test")
    return Done(result)


def _rendered(tools: SendingTools, order: Order, recipient: str, now: datetime) -> RenderedMessage:
    campaign = tools.campaign
    with closing(tools.connect_source()) as source:
        if order.user_ids:
            cohort, user_id = any_day(campaign, now), order.user_ids[0]
        else:
            cohort, user_id = _example(tools.audience, source, campaign, now)
        columns = tools.audience.check(source, cohort)
        tools.templates.check_variables(columns.variables)
        profile: dict[str, Any] | None = _profile(tools.audience, source, cohort, user_id)
    if profile is None:
        raise SourceError(
            f"the audience of {campaign.id} returns no user {user_id}, whenever created; nothing was sent"
        )
    message_id = f"<{uuid4()}@{tools.templates.sender_domain}>"
    return tools.templates.render(profile, recipient, message_id, now, test_mark=SUBJECT_MARK)


def _profile(
    audience: Audience, source: psycopg.Connection[Any], cohort: Cohort, user_id: str
) -> dict[str, Any] | None:
    return audience.profiles(source, cohort, [user_id]).get(user_id)


def _example(
    audience: Audience, source: psycopg.Connection[Any], campaign: Campaign, now: datetime
) -> tuple[Cohort, str]:
    newest = cohort_date_of(campaign, now)
    for days in range(EXAMPLE_DAYS):
        cohort = natural_cohort(campaign, newest - timedelta(days=days))
        with closing(audience.members(source, cohort)) as members:
            for user_id, _ in members:
                return cohort, user_id
    raise SourceError(
        f"the newest {EXAMPLE_DAYS} cohorts of {campaign.id} have no users; nothing was sent. Name a user"
    )


def _told(outcome: Outcome) -> str:
    said = f"it said: {outcome.code or ''} {outcome.reply}".strip()
    if outcome.verdict is Verdict.SENT:
        return f"the mail server accepted the test; {said}"
    if outcome.verdict is Verdict.IN_DOUBT:
        return f"the mail server may have accepted the test or not; {said}"
    return f"the mail server did not accept the test; {said}"
