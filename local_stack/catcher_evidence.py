"""The catcher's record as evidence: every mail that it has was delivered to it.

For `lifecycle_emails.ledger.evidence`. It says nothing of mails that it has not.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import UUID

from lifecycle_emails.ledger.evidence import Doubt, Fact, Proof
from local_stack.mail_store import MailStore


class CaughtMails:
    """The file of a catcher, as a source of evidence. Looks mails up by the key in their Message-ID."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def prove(self, doubts: Mapping[UUID, Doubt]) -> Iterable[Proof]:
        """Say of the doubts which were caught, and when."""
        by_key = {str(key): key for key in doubts}
        return [
            Proof(
                by_key[name], Fact.DELIVERED, at, None, f"catcher, {at.isoformat(timespec='seconds')}: caught"
            )
            for message_id, at in MailStore(self._path).message_ids()
            if (name := message_id.strip().removeprefix("<").partition("@")[0]) in by_key
        ]
