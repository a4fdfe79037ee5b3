"""What a Postfix log says of mails, as evidence for sends in doubt.

Reads the log files of an MTA that speaks Postfix's format, rotated and compressed ones too, line by line.
What counts, by queue id:

- ``cleanup`` ties a queue id to a Message-ID. Alone it proves nothing: Postfix logs it while the message is
  still being transmitted, and forgets the message when the dot never comes.
- ``qmgr`` ``(queue active)``: the message is in the queue. It was accepted.
- ``status=sent`` with dsn 2.x.x: delivered to the next server or the mailbox.
- ``status=bounced`` with dsn 5.x.x: refused for good, after it was accepted.
- any other status, ``deferred`` for one: accepted.

Must not know the ledger's tables. Addresses and replies in the log are never kept.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import IO
from uuid import UUID

from lifecycle_emails.errors import LifecycleError
from lifecycle_emails.ledger.evidence import Doubt, Fact, Proof

CLOCK_SKEW = timedelta(minutes=5)
"""How far the log's clock may be from the ledger's."""

_LINE = re.compile(
    r"(?P<at>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ "
    r"[\w.-]+(?:/[\w.-]+)*/(?P<program>\w+)\[\d+\]: (?P<queue_id>[0-9A-Za-z]{6,20}): (?P<rest>.*)"
)
_MESSAGE_ID = re.compile(r"message-id=<?(?P<key>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})@")
_QUEUED = re.compile(r"from=<.*>, size=\d+, nrcpt=\d+ \(queue active\)$")
# Anchored over every field: address and reply come from strangers, who may write "status=sent" into them.
_ADDRESS = r'<(?:"(?:[^"\\]|\\.)*"|[^<>"])*>'
_STATUS = re.compile(
    rf"to={_ADDRESS}, (?:orig_to={_ADDRESS}, )?relay=[^,]*, (?:conn_use=\d+, )?delay=[\d.]+, delays=[\d./]+, "
    r"dsn=(?P<dsn>[245]\.\d+\.\d+), status=(?P<status>[\w-]+) \((?P<reply>.*)"
)
_HANDED_ON = re.compile(r"queued as (?P<queue_id>[0-9A-Za-z]{6,20})\)")
_NOT_DELIVERIES = {"deliverable", "undeliverable"}  # address probes, which carry no mail


@dataclass
class _Message:
    """A wanted mail in one queue of the log."""

    key: UUID
    queue_id: str
    facts: dict[Fact, tuple[datetime, str]] = field(default_factory=dict)
    handed_to: set[str] = field(default_factory=set)

    def note(self, fact: Fact, at: datetime, words: str) -> None:
        self.facts.setdefault(fact, (at, words))


class PostfixLog:
    """Log files of one MTA, as a source of evidence.

    ``files``: paths in any order; those ending in ``.gz`` are read compressed. ``zone``: the time zone of
    traditional syslog time stamps, which do not say it, nor their year: it is the newest that is not in the
    future.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        *,
        zone: tzinfo = UTC,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._files = [Path(file) for file in files]
        self._zone = zone
        self._now = now

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        """Read all files and give what they prove. Raises LifecycleError when one cannot be read."""
        by_queue = {
            doubt.queue_id: _Message(doubt.key, doubt.queue_id) for doubt in doubts.values() if doubt.queue_id
        }
        messages = list(by_queue.values())
        for entry in self._entries():
            queue_id, rest = entry["queue_id"], entry["rest"]
            if entry["program"] == "cleanup" and rest.startswith("message-id="):
                by_queue.pop(queue_id, None)  # short queue ids are used again
                found = _MESSAGE_ID.match(rest)
                if found and (key := UUID(found["key"])) in doubts:
                    by_queue[queue_id] = _Message(key, queue_id)
                    messages.append(by_queue[queue_id])
            elif message := by_queue.get(queue_id):
                at = self._time(entry["at"])
                doubt = doubts[message.key]
                # known by its queue id alone: an older line is about an older mail
                if at and (doubt.queue_id != queue_id or at >= doubt.gate_at - CLOCK_SKEW):
                    _read_entry(message, at, entry["program"], rest)
        return list(_proofs(messages))

    def check(self) -> None:
        """Raise LifecycleError when a file cannot be read; `prove` is not asked where nothing is in doubt."""
        for file in self._files:
            next(_entries_of(file), None)

    def _entries(self) -> Iterator[re.Match[str]]:
        """A mail's lines may begin in a rotated file and go on in the next: the oldest file first."""
        for file in sorted(self._files, key=self._first_time):
            yield from _entries_of(file)

    def _first_time(self, file: Path) -> datetime:
        times = (self._time(entry["at"]) for entry in _entries_of(file))
        return next((at for at in times if at), datetime.max.replace(tzinfo=UTC))

    def _time(self, text: str) -> datetime | None:
        """None for what is no time."""
        if text[0].isdigit():
            with suppress(ValueError):
                at = datetime.fromisoformat(text)
                return at if at.tzinfo else at.replace(tzinfo=self._zone)
            return None
        latest = self._now() + timedelta(days=1)
        for year in range(latest.year, latest.year - 5, -1):
            with suppress(ValueError):  # the 29th of February, in a year without one
                at = datetime.strptime(f"{year} {text}", "%Y %b %d %H:%M:%S").replace(tzinfo=self._zone)
                if at <= latest:
                    return at
        return None


def _read_entry(message: _Message, at: datetime, program: str, rest: str) -> None:
    if program == "qmgr":
        if _QUEUED.match(rest):
            message.note(Fact.ACCEPTED, at, "is in the queue")
        return
    found = _STATUS.match(rest)
    if not found or found["status"] in _NOT_DELIVERIES:
        return
    status, dsn = found["status"], found["dsn"]
    message.note(Fact.ACCEPTED, at, f"status {status}, dsn {dsn}")
    if status == "sent" and dsn.startswith("2."):
        handed = _HANDED_ON.search(found["reply"])
        if handed:
            message.handed_to.add(handed["queue_id"])
        message.note(Fact.DELIVERED, at, f"status sent, dsn {dsn}")
    elif status == "bounced" and dsn.startswith("5."):
        message.note(Fact.BOUNCED, at, f"status bounced, dsn {dsn}")


def _proofs(messages: Iterable[_Message]) -> Iterator[Proof]:
    """A mail handed to a filter and taken back has two queue ids: what became of it is what the last says."""
    queues = {(message.key, message.queue_id) for message in messages}
    for message in messages:
        handed_on = any((message.key, queue_id) in queues for queue_id in message.handed_to)
        for fact, (at, words) in message.facts.items():
            if fact is not Fact.DELIVERED or not handed_on:
                yield Proof(
                    message.key, fact, at, message.queue_id,
                    f"mail log, {at.isoformat(timespec='seconds')}, queue id {message.queue_id}: {words}",
                )  # fmt: skip


def _entries_of(file: Path) -> Iterator[re.Match[str]]:
    """Postfix's lines of one file that name a queue id, read one at a time: logs are long."""
    try:
        with _open(file) as lines:
            for line in lines:
                if entry := _LINE.match(line.rstrip("\n")):
                    yield entry
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise LifecycleError(f"the log {file} cannot be read, so nothing was settled: {why}") from None


def _open(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", errors="replace")
    return file.open(encoding="utf-8", errors="replace")
