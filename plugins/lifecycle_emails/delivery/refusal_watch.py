"""Tells a provider that refuses everything from recipients that do not exist.

Twenty refusals in a row, or more than thirty percent of the last hundred mails: the fault is hardly the
recipients'. Pure and thread-safe; must not know the ledger or SMTP dialogues.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

REFUSALS_IN_A_ROW = 20
LAST_MAILS = 100
REFUSED_SHARE = 0.30

Rejection = TypeVar("Rejection")


class RefusalWatch(Generic[Rejection]):
    """Counts refusals over all lanes of a task; keeps rejections back until it is clear whose fault they are.

    A rejection is final for its recipient, so while refusals follow one another it waits; an accepted mail
    releases it, and so does the end of the batch where the provider has accepted any mail at all. Once
    `tripped`, none of the waiting ones may count as a rejection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._accepts_mail = False
        self._last: deque[bool] = deque(maxlen=LAST_MAILS)
        self._waiting: list[tuple[Rejection, bool]] = []
        self._tripped: str | None = None

    @property
    def tripped(self) -> str | None:
        """Why the provider must be stopped, in words; None while all is well."""
        return self._tripped

    def accepted(self) -> list[Rejection]:
        """A mail was accepted; returns the rejections that this shows to be about their recipients."""
        with self._lock:
            self._in_a_row = 0
            self._accepts_mail = True
            self._last.append(False)
            released, self._waiting = self._waiting, []
            return [rejection for rejection, _ in released]

    def refused(self, rejection: Rejection | None = None, *, named: bool = False) -> None:
        """A mail was refused; ``rejection`` when the reply speaks of the recipient.

        ``named``: by an enhanced code (RFC 3463), rather than by a bare 550, 551 or 553.
        """
        with self._lock:
            self._in_a_row += 1
            self._last.append(True)
            if rejection is not None:
                self._waiting.append((rejection, named))
            refused = sum(self._last)
            if self._in_a_row >= REFUSALS_IN_A_ROW:
                self._tripped = f"{self._in_a_row} mails in a row were refused"
            elif len(self._last) == LAST_MAILS and refused > REFUSED_SHARE * LAST_MAILS:
                self._tripped = f"{refused} of the last {LAST_MAILS} mails were refused"

    def drain(self) -> tuple[list[Rejection], list[Rejection]]:
        """Tell the rejections still waiting apart, at the end of the batch: (of recipients, not proven).

        Nothing was accepted after them. So a bare code proves nothing, and an enhanced one only where the
        provider has accepted another mail of this task: a small batch never gets to twenty refusals. Once
        `tripped`, none is proven.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, []
            credible = self._accepts_mail and not self._tripped
        proven = [rejection for rejection, named in waiting if named and credible]
        return proven, [rejection for rejection, named in waiting if not (named and credible)]
