"""One user's mail of a campaign as it would be sent, for people to look at: a page, a text, the whole mail.

Knows audience and templates. Must not know the ledger or SMTP: a preview is no send, and leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID

import psycopg

from lifecycle_emails.address import parse_recipient, scrub_addresses
from lifecycle_emails.audience import Audience, UserIdType
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import Cohort
from lifecycle_emails.errors import SourceError
from lifecycle_emails.message import MessageTemplates, RenderedMessage
from lifecycle_emails.message_id import message_id

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Preview:
    """Where the parts of the mail stand, and its headers in order; the recipient's address is not in them."""

    html: Path
    text: Path
    whole: Path
    headers: tuple[tuple[str, str], ...]


def render_preview(
    campaign: Campaign,
    audience: Audience,
    templates: MessageTemplates,
    source: psycopg.Connection[object],
    user_id: str,
    now: datetime,
) -> RenderedMessage:
    """Render the user's mail, whatever day the user was created on; ``now`` is its Date header.

    Raises SourceError when the audience returns no such user, and what `MessageTemplates.render` raises.
    """
    cohort = any_day(campaign, now)
    columns = audience.check(source, cohort)
    templates.check_variables(columns.variables)
    known = _could_be_an_id(user_id, columns.user_id_type)
    profile = audience.profiles(source, cohort, [user_id], columns).get(user_id) if known else None
    if profile is None:
        raise SourceError(
            f"the audience of {campaign.id} returns no user {user_id}, whenever created; nothing was changed"
        )
    name = message_id(NAMESPACE_URL, campaign.id, user_id, templates.sender_domain)
    return templates.render(profile, parse_recipient(profile["email"]), name, now)


def _could_be_an_id(user_id: str, of_type: UserIdType) -> bool:
    """Whether the source can compare this with its ids at all; its own message would blame the query."""
    if of_type == "text":
        return True
    try:
        known: object = UUID(user_id) if of_type == "uuid" else int(user_id)
    except ValueError:
        return False
    return str(known) == user_id.lower()


def any_day(campaign: Campaign, now: datetime) -> Cohort:
    """A window of all time up to ``now``: whoever looks at a text cares little for the user's day."""
    return Cohort(
        campaign=campaign.id,
        cohort_date=now.date(),
        window_start=_EARLIEST,
        window_end=now,
        timezone=campaign.timezone,
        offset_days=campaign.offset_days,
        not_after=now,
    )


def write_preview(message: RenderedMessage, folder: Path, campaign_id: str, user_id: str) -> Preview:
    """Write the mail's parts into ``folder``, named by campaign and user. Raises OSError as files do."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{campaign_id}-{quote(user_id, safe='')}"
    mail = message_from_bytes(message.content, policy=policy.default)
    paths = {ending: folder / f"{stem}.{ending}" for ending in ("html", "txt", "eml")}
    paths["eml"].write_bytes(message.content)
    for ending, subtype in (("html", "html"), ("txt", "plain")):
        body = mail.get_body((subtype,))
        paths[ending].write_text("" if body is None else body.get_content(), encoding="utf-8")
    headers = tuple(
        (name, scrub_addresses(str(value)) if name.lower() == "to" else str(value))
        for name, value in mail.items()
    )
    return Preview(paths["html"], paths["txt"], paths["eml"], headers)
