"""The mails of one pass over a group: profiles read ahead of need, each message rendered when a lane is free.

Knows audience and templates, and that lanes may wait. Must not know SMTP. Whoever cannot be mailed is held
here, one by one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from lifecycle_emails.address import address_hash, parse_recipient
from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.cohort import Cohort
from lifecycle_emails.delivery.lane import Mail, Tally
from lifecycle_emails.delivery.smtp_session import SmtpSettings
from lifecycle_emails.errors import InvalidAddress, RenderFailed
from lifecycle_emails.ledger.attempt import Record, RecordedAs
from lifecycle_emails.ledger.gate import Event, Gate
from lifecycle_emails.ledger.session import Connect
from lifecycle_emails.message import MessageTemplates
from lifecycle_emails.message_id import message_id
from lifecycle_emails.throttle import Throttle

PROFILES_AT_ONCE = 500
"""Users whose variables are read from the source in one query, at most."""

READ_AHEAD_SECONDS = 10.0
"""Under a rate so many users as are mailed in this time: what was read long ago may no longer be so."""

_Profile = tuple[str, dict[str, Any] | None]


@dataclass(frozen=True)
class SendingTools:
    """What a group is sent with. ``connect_source`` opens the database that the audience is read from."""

    campaign: Campaign
    audience: Audience
    templates: MessageTemplates
    smtp: SmtpSettings
    connect_ledger: Connect
    connect_source: Callable[[], psycopg.Connection[Any]]
    throttle: Throttle | None = None


@dataclass(frozen=True)
class Keys:
    """What the ledger's installation derives identifiers with."""

    message_id_namespace: UUID
    address_hash_key: bytes


def profiles_at_once(throttle: Throttle | None) -> int:
    """How many users to read in one query. While they are mailed, as many are read ahead."""
    if throttle is None or throttle.mails_per_second is None:
        return PROFILES_AT_ONCE
    return max(1, min(PROFILES_AT_ONCE, int(throttle.mails_per_second * READ_AHEAD_SECONDS)))


class Mails:
    """Gives the mails of those who are due, until there are none. `next` is called by lanes of one thread."""

    def __init__(
        self,
        tools: SendingTools,
        due: Sequence[tuple[Cohort, list[str]]],
        keys: Keys,
        gate: Gate,
        tally: Tally,
        new_event: Callable[[], Event],
        at_most: int | None = None,
    ) -> None:
        self._tools = tools
        self._due = due
        self._keys = keys
        self._gate = gate
        self._tally = tally
        self._new_event = new_event
        self._at_most = at_most
        self._chunk: deque[_Profile] = deque()
        self._changed = threading.Condition()
        self._read: deque[_Profile] | None = None
        self._waiting: list[Event] = []
        self._ended = False
        self.given = 0
        """Mails given so far."""
        self.failure: Exception | None = None
        """Why the source could not be read to its end."""
        threading.Thread(target=self._read_ahead, name="profiles", daemon=True).start()

    def next(self) -> Mail | None:
        """Return the next mail, rendered now; None when there are no more. May wait for the source."""
        while self._at_most is None or self.given < self._at_most:
            if not self._chunk:
                if not self._take_chunk():
                    return None
                continue
            mail = self._render(*self._chunk.popleft())
            if mail is not None:
                self.given += 1
                return mail
        return None

    def end(self) -> None:
        """Give nothing more, and wake whoever waits."""
        with self._changed:
            self._ended = True
            self._chunk.clear()
            self._read = None
            self._wake_all()

    def _take_chunk(self) -> bool:
        with self._changed:
            if self._read is not None:
                self._chunk, self._read = self._read, None
                self._changed.notify_all()
                return True
            if self._ended:
                return False
            event = self._new_event()
            self._waiting.append(event)
        event.wait()
        return True

    def _read_ahead(self) -> None:
        """In a thread of its own: have the next chunk ready while the lanes work on the last one."""
        try:
            self._read_all()
        except Exception as error:  # noqa: BLE001  # the thread's owner asks for it
            self.failure = error
        with self._changed:
            self._ended = True
            self._wake_all()

    def _read_all(self) -> None:
        audience, at_once = self._tools.audience, profiles_at_once(self._tools.throttle)
        with self._tools.connect_source() as source:
            for cohort, user_ids in self._due:
                columns = audience.check(source, cohort)
                # a variable that the query does not return at all is a mistake of files, not of a user
                self._tools.templates.check_variables(columns.variables)
                for start in range(0, len(user_ids), at_once):
                    chunk = user_ids[start : start + at_once]
                    profiles = audience.profiles(source, cohort, chunk, columns)
                    if not self._hand_over([(user_id, profiles.get(user_id)) for user_id in chunk]):
                        return

    def _hand_over(self, chunk: list[_Profile]) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._read is None or self._ended)
            if self._ended:
                return False
            self._read = deque(chunk)
            self._wake_all()
            return True

    def _wake_all(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()

    def _render(self, user_id: str, profile: dict[str, Any] | None) -> Mail | None:
        if profile is None:
            self._hold(user_id, "left_audience", "the audience query no longer returns this user")
            return None
        tools, keys = self._tools, self._keys
        name = message_id(
            keys.message_id_namespace, tools.campaign.id, user_id, tools.templates.sender_domain
        )
        try:
            recipient = parse_recipient(profile["email"])
            message = tools.templates.render(profile, recipient, name, datetime.now(UTC))
        except InvalidAddress as error:
            self._hold(user_id, "invalid_address", str(error))
            return None
        except RenderFailed as error:
            self._hold(user_id, "render_failed", str(error))
            return None
        return Mail(user_id, address_hash(keys.address_hash_key, recipient), message)

    def _hold(self, user_id: str, reason: str, detail: str) -> None:
        self._gate.record(Record(user_id, None, RecordedAs.HELD, held_reason=reason, detail=detail))
        self._tally.count(RecordedAs.HELD)
