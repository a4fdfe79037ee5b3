"""The caught mails in a SQLite file: written durably in groups, read while they come in."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from local_stack.mail_content import header_text, parse, reference

_SCHEMA = Path(__file__).with_suffix(".sql").read_text()

_INSERT_MAIL = """
    INSERT INTO mails (received_at, sender, recipient, subject, message_id, campaign, user_id)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_CONTENT = "INSERT INTO contents (number, content) VALUES (?, ?)"
_SELECT = "SELECT number, received_at, sender, recipient, subject, message_id, campaign, user_id FROM mails"
_FOUND = """
    WHERE (:alerts_only = 0 OR campaign IS NULL)
      AND (:campaign = '' OR campaign = :campaign)
      AND (:words = '' OR user_id = :words OR campaign = :words
           OR instr(lower(recipient), lower(:words)) OR instr(lower(subject), lower(:words)))
"""
_COUNT_FOUND = "SELECT count(*) FROM mails" + _FOUND  # noqa: S608  (constants)
_LIST_FOUND = _SELECT + _FOUND + "ORDER BY number DESC LIMIT :limit OFFSET :offset"
_ONE = _SELECT + " WHERE number = ?"
_CONTENT = "SELECT content FROM contents WHERE number = ?"
_COPIES = "SELECT campaign, user_id, count(*) FROM mails WHERE campaign IS NOT NULL GROUP BY 1, 2"
_CAMPAIGNS = "SELECT campaign, count(*) FROM mails WHERE campaign IS NOT NULL GROUP BY 1 ORDER BY 1"
_TIMES = "SELECT user_id, campaign, received_at FROM mails WHERE campaign IS NOT NULL ORDER BY 1, 3"

_MESSAGE_IDS = "SELECT message_id, received_at FROM mails WHERE campaign IS NOT NULL ORDER BY number"


@dataclass(frozen=True)
class Arrival:
    """A message as the SMTP server took it: the envelope, the raw content, and when it was complete."""

    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True)
class Mail:
    """A caught mail without its content. `campaign` and `user_id` are None where it has no Reference."""

    number: int
    received_at: datetime
    sender: str
    recipient: str
    subject: str
    message_id: str
    campaign: str | None
    user_id: str | None

    @property
    def is_alert(self) -> bool:
        """Whether the mail is for the team rather than for a user of a campaign."""
        return self.campaign is None


@dataclass(frozen=True)
class Search:
    """Which mails. `words`: in recipient or subject, or exactly a campaign or user id. Empty: all."""

    words: str = ""
    campaign: str = ""
    alerts_only: bool = False

    def values(self) -> dict[str, str | int]:
        """Give the values to bind to the search's SQL."""
        return {"words": self.words.strip(), "campaign": self.campaign, "alerts_only": int(self.alerts_only)}


EVERYTHING = Search()


class MailStore:
    """The file. Any number of readers, in any process, beside one writer."""

    def __init__(self, path: Path) -> None:
        """Open the file, creating it when missing."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._durable()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    @contextmanager
    def writing(self) -> Iterator["MailWriter"]:
        """Open the one writer; used by one thread at a time."""
        with closing(self._durable()) as connection:
            yield MailWriter(connection)

    def count(self, search: Search = EVERYTHING) -> int:
        """Count the mails that a search finds."""
        with self._reading() as connection:
            return int(connection.execute(_COUNT_FOUND, search.values()).fetchone()[0])

    def mails(self, search: Search = EVERYTHING, *, limit: int = 50, offset: int = 0) -> list[Mail]:
        """List the mails that a search finds, newest first."""
        with self._reading() as connection:
            values = {**search.values(), "limit": limit, "offset": offset}
            return [_mail(row) for row in connection.execute(_LIST_FOUND, values)]

    def mail(self, number: int) -> Mail | None:
        """Find one mail."""
        with self._reading() as connection:
            row = connection.execute(_ONE, (number,)).fetchone()
        return _mail(row) if row else None

    def content(self, number: int) -> bytes | None:
        """Return the raw message as it came."""
        with self._reading() as connection:
            row = connection.execute(_CONTENT, (number,)).fetchone()
        return bytes(row[0]) if row else None

    def copies(self) -> dict[tuple[str, str], int]:
        """Count the mails of every (campaign, user id)."""
        with self._reading() as connection:
            rows = connection.execute(_COPIES)
            return {(campaign, user_id): copies for campaign, user_id, copies in rows}

    def campaigns(self) -> dict[str, int]:
        """Count the mails of every campaign."""
        with self._reading() as connection:
            return dict(connection.execute(_CAMPAIGNS).fetchall())

    def times(self) -> list[tuple[str, str, datetime]]:
        """List (user id, campaign, time of arrival) of every campaign's mails, by user and time."""
        with self._reading() as connection:
            rows = connection.execute(_TIMES).fetchall()
        return [(user_id, campaign, datetime.fromisoformat(at)) for user_id, campaign, at in rows]

    def message_ids(self) -> list[tuple[str, datetime]]:
        """List (Message-ID, time of arrival) of every campaign's mails, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(_MESSAGE_IDS).fetchall()
        return [(message_id, datetime.fromisoformat(at)) for message_id, at in rows]

    def _durable(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.execute("PRAGMA query_only = 1")
            connection.row_factory = sqlite3.Row
            yield connection


class MailWriter:
    """Records mails, many in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def write(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Record mails in one transaction and return their numbers, in order; durable on return."""
        rows = [_row(arrival) for arrival in arrivals]
        numbers = []
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            for row, arrival in zip(rows, arrivals, strict=True):
                number = connection.execute(_INSERT_MAIL, row).lastrowid or 0
                connection.execute(_INSERT_CONTENT, (number, arrival.content))
                numbers.append(number)
        return numbers


def _row(arrival: Arrival) -> tuple[str | None, ...]:
    message = parse(arrival.content)
    campaign, user_id = reference(message) or (None, None)
    return (
        arrival.received_at.astimezone(UTC).isoformat(timespec="microseconds"),
        arrival.sender,
        ", ".join(arrival.recipients),
        header_text(message, "Subject"),
        header_text(message, "Message-ID"),
        campaign,
        user_id,
    )


def _mail(row: sqlite3.Row) -> Mail:
    return Mail(**{**dict(row), "received_at": datetime.fromisoformat(row["received_at"])})
