"""A campaign's mail for one user: its templates filled in, and the whole put into the form that SMTP carries.

Knows the campaign, its templates and the headers of a mail (RFC 5322, 2045 to 2047, 2369, 8058, 3834). Must
not know databases, the ledger, or SMTP. Users' data goes into the mail and into nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from lifecycle_emails.address import parse_mailbox
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.errors import ConfigurationError, RenderFailed
from lifecycle_emails.mail_template import MailTemplate, TemplateFolder
from lifecycle_emails.mime import MimeSkeleton, UnfitForHeader, header_line, mailbox_line, token_line

_URI = re.compile(r"(mailto:|https://)[!#-;=?-~]+")  # RFC 3986: visible ASCII without quotes and < >
_MAX_URI = 900  # leaves room for the header's name in a line of 998 octets (RFC 5322 2.1.1)


@dataclass(frozen=True)
class RenderedMessage:
    """One mail, ready for the envelope: who it is from, whom it goes to, and what it is."""

    sender: str
    recipient: str
    content: bytes = field(repr=False)
    """Headers and body: lines end in CRLF, the last one too; not dot-stuffed."""
    needs_smtputf8: bool
    """Whether the recipient's address is beyond ASCII, which only some servers take (RFC 6531)."""


@dataclass(frozen=True)
class MessageTemplates:
    """All that a campaign's mails have in common: compiled once, filled in for each user.

    Templates have the columns of the audience as variables, ``campaign`` (its id), and ``list_unsubscribe``
    (this user's address for unsubscribing, or None).
    """

    subject: MailTemplate
    text: MailTemplate
    html: MailTemplate
    list_unsubscribe: MailTemplate | None
    skeleton: MimeSkeleton
    sender: str
    """Address of the envelope and of the From header."""
    version: str
    """Short hash over everything that shapes a mail but the user: templates and header settings."""

    @classmethod
    def load(cls, include_dir: Path, campaign: Campaign) -> MessageTemplates:
        """Compile the campaign's templates.

        Raises ConfigurationError that names file and line where one does not compile.
        """
        folder = TemplateFolder(include_dir, campaign.template, {"campaign": campaign.id})
        subject, text, html = (
            folder.load(name) for name in ("subject.txt.j2", "body.txt.j2", "body.html.j2")
        )
        unsubscribe = None
        if campaign.list_unsubscribe is not None:
            place = f"{include_dir.name}/campaigns/{campaign.id}.yaml, list_unsubscribe"
            unsubscribe = folder.compile(campaign.list_unsubscribe, place)
        headers = _common_headers(campaign)
        sources = [source for template in (subject, text, html) for source in template.sources]
        return cls(
            subject=subject,
            text=text,
            html=html,
            list_unsubscribe=unsubscribe,
            skeleton=MimeSkeleton.compile(headers),
            sender=parse_mailbox(campaign.sender).addr_spec,
            version=_version([*sources, *map(bytes.decode, headers), campaign.list_unsubscribe or ""]),
        )

    @property
    def sender_domain(self) -> str:
        """Domain of the sender's address, in A-labels."""
        return self.sender.rpartition("@")[2]

    def check_variables(self, available: Iterable[str]) -> None:
        """Check that an audience with the columns ``available`` returns every variable that a template needs.

        Raises ConfigurationError that names the missing ones. Without it they would be found user by user.
        """
        templates = [self.subject, self.text, self.html, self.list_unsubscribe]
        needed = {name: template for template in templates if template for name in template.variables}
        missing = sorted(needed.keys() - set(available) - {"list_unsubscribe"})
        if missing:
            places = sorted({needed[name].place for name in missing})
            names = ", ".join(f"`{name}`" for name in missing)
            raise ConfigurationError(
                f"the audience does not return {names}, needed by {' and '.join(places)}. Add it to the "
                "audience's SELECT list, or test it by `is defined` in the template."
            )

    def render(
        self,
        profile: Mapping[str, Any],
        recipient: str,
        message_id: str,
        date: datetime,
        *,
        test_mark: str = "",
    ) -> RenderedMessage:
        """Return the mail for one user.

        ``profile``: the audience's row. ``recipient``: an address by `parse_recipient`. ``message_id``: an
        RFC 5322 3.6.4 msg-id in angle brackets. ``date``: the Date header, an aware datetime. The same
        arguments give the same bytes. ``test_mark`` stands before the subject of a test; such a mail has no
        headers for unsubscribing, with which somebody else's mail program could suppress this user.

        Raises RenderFailed when a template fails for this user, or a header cannot hold what it gives; the
        message names template, line and variable, never a value.
        """
        unsubscribe = self._unsubscribe_address(profile)
        variables = {**profile, "list_unsubscribe": unsubscribe}
        subject = self._rendered_subject(variables, test_mark)
        text, html = self.text.render(variables), self.html.render(variables)
        try:
            headers = [
                _date_line(date.replace(microsecond=0)),
                token_line("To", recipient),
                token_line("Message-ID", message_id),
                *_unsubscribe_lines(None if test_mark else unsubscribe),
            ]
        except UnfitForHeader as unfit:
            raise RenderFailed(f"the recipient or Message-ID holds {unfit}") from None
        return RenderedMessage(
            sender=self.sender,
            recipient=recipient,
            content=self.skeleton.fill([*headers, subject], text, html),
            needs_smtputf8=not recipient.rpartition("@")[0].isascii(),
        )

    def _rendered_subject(self, variables: Mapping[str, Any], test_mark: str) -> bytes:
        subject = self.subject.render(variables).strip()
        if not subject:
            raise RenderFailed(f"{self.subject.place} gives this user an empty subject")
        try:
            return header_line("Subject", test_mark + subject)
        except UnfitForHeader as unfit:
            raise RenderFailed(f"{self.subject.place} gives a subject that holds {unfit}") from None

    def _unsubscribe_address(self, profile: Mapping[str, Any]) -> str | None:
        if self.list_unsubscribe is None:
            return None
        address = self.list_unsubscribe.render(profile)
        if not _URI.fullmatch(address) or len(address) > _MAX_URI:
            raise RenderFailed(
                f"{self.list_unsubscribe.place} gives no single mailto: or https: address; pass what users "
                "have written through `| urlencode`"
            )
        return address


@lru_cache(maxsize=1)
def _date_line(second: datetime) -> bytes:
    """Return the Date header (RFC 5322 3.6.1); many mails are made in one second."""
    return header_line("Date", format_datetime(second.astimezone(UTC)))


def _common_headers(campaign: Campaign) -> list[bytes]:
    """Return the header lines that all mails of the campaign share."""
    headers = [
        mailbox_line("From", parse_mailbox(campaign.sender)),
        token_line("Auto-Submitted", "auto-generated"),  # RFC 3834 5: so that nobody's holiday notice answers
    ]
    if campaign.reply_to is not None:
        headers.append(mailbox_line("Reply-To", parse_mailbox(campaign.reply_to)))
    if campaign.feedback_id is not None:
        headers.append(token_line("Feedback-ID", campaign.feedback_id))
    return headers


def _unsubscribe_lines(address: str | None) -> list[bytes]:
    """Return the headers for unsubscribing: RFC 2369 3.2, and for https: one click by RFC 8058 3.1."""
    if address is None:
        return []
    lines = [token_line("List-Unsubscribe", f"<{address}>")]
    if address.startswith("https:"):
        lines.append(token_line("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    return lines


def _version(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:12]
