"""A session whose every call is a lane's: the same dialogues, waited for by a `LaneLoop`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lifecycle_emails.delivery.lane_loop import LaneLoop
from lifecycle_emails.delivery.reply import Outcome
from lifecycle_emails.delivery.smtp_session import Message, SmtpSession, SmtpSettings

Result = TypeVar("Result")


class LoopedSession(SmtpSession):
    """Runs the loop for each call, in the thread that calls, until the lane has come to its end."""

    def __init__(self, settings: SmtpSettings) -> None:
        self.loop = LaneLoop()
        super().__init__(settings, self.loop)

    def open(self) -> None:
        """See `SmtpSession`."""
        self._in_a_lane(super().open)

    def offer(self, message: Message) -> Outcome | None:
        """See `SmtpSession`."""
        return self._in_a_lane(lambda: super(LoopedSession, self).offer(message))

    def finish(self) -> Outcome:
        """See `SmtpSession`."""
        return self._in_a_lane(super().finish)

    def close(self) -> None:
        """See `SmtpSession`."""
        self._in_a_lane(super().close)

    def _in_a_lane(self, work: Callable[[], Result]) -> Result:
        results: list[Result] = []
        self.loop.start(lambda: results.append(work()))
        self.loop.run(go_on=lambda: True, when_idle=lambda: None)
        return results[0]
