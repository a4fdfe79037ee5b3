"""The judge: an SMTP server whose every answer is planned per user, and which writes down what it accepted.

It knows users only by the recipient and the reference line in the body; nothing of the package under test.
Its file gets a line, flushed to the disk, for every accepted message before anything is answered, and its log
a line for every dot that reached it: what was answered tells what a sender may be in doubt about.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.scripted_smtp_server import (
    Accept,
    BlackHole,
    Bytewise,
    Delay,
    Eof,
    Queued,
    Raw,
    Reply,
    Reset,
    ScriptedSmtpServer,
    Step,
    Until,
)


@dataclass(frozen=True)
class Mode:
    """What the sink does at a phase. ``answer``: how its reply to a dot reads; None for the other phases."""

    steps: tuple[Step, ...]
    answer: str | None = None


CLEAR, DOUBTFUL = "clear", "doubtful"

UNTIL_TOLD = Until(threading.Event())
"""Stands for the moment at which the bench tells the sink to go on."""

DOT_MODES: dict[str, Mode] = {
    "accept": Mode((Accept(), Queued()), CLEAR),
    "accept slowly": Mode((Accept(), Delay(0.05), Queued()), CLEAR),
    "accept after a second": Mode((Accept(), Delay(1.0), Queued()), CLEAR),
    "accept, answer when told": Mode((Accept(), UNTIL_TOLD, Queued()), CLEAR),
    "accept in two lines": Mode((Accept(), Reply(250, "2.0.0 Ok", "2.0.0 queued as 4QAAAz")), CLEAR),
    "accept byte by byte": Mode((Accept(), Bytewise(b"250 2.0.0 Ok: queued as 4QBz\r\n", 0.001)), CLEAR),
    "accept, reset": Mode((Accept(), Reset()), DOUBTFUL),
    "accept, EOF": Mode((Accept(), Eof()), DOUBTFUL),
    "accept, silence": Mode((Accept(), BlackHole()), DOUBTFUL),
    "accept, garbled": Mode((Accept(), Raw(b"\x00\xff garbage\r\n"), Eof()), DOUBTFUL),
    "accept, half a reply": Mode((Accept(), Raw(b"25"), Eof()), DOUBTFUL),
    "accept, 451 4.4.2": Mode((Accept(), Reply(451, "4.4.2 proxy timed out")), DOUBTFUL),
    "reset": Mode((Reset(),), DOUBTFUL),
    "EOF": Mode((Eof(),), DOUBTFUL),
    "silence": Mode((BlackHole(),), DOUBTFUL),
    "garbled": Mode((Raw(b"what is this\r\n"), Eof()), DOUBTFUL),
    "bare 421": Mode((Reply(421, "closing"), Eof()), DOUBTFUL),
    "451 4.3.0": Mode((Reply(451, "4.3.0 try later"),), CLEAR),
    "421 4.7.0": Mode((Reply(421, "4.7.0 too fast"), Eof()), CLEAR),
    "554 5.7.1": Mode((Reply(554, "5.7.1 policy"),), CLEAR),
    "550 5.1.1": Mode((Reply(550, "5.1.1 no such user"),), CLEAR),
}

DOUBTFUL_MODES = tuple(name for name, mode in DOT_MODES.items() if mode.answer == DOUBTFUL)
SILENT_MODES = ("accept, silence", "silence")
"""These cost the sender its whole time limit."""
REJECTING_MODES = ("550 5.1.1", "550")
"""Replies that speak of the recipient."""

EARLY_MODES: dict[str, Mode] = {
    "450": Mode((Reply(450, "4.2.0 greylisted"),)),
    "451": Mode((Reply(451, "local error"),)),
    "421": Mode((Reply(421, "4.3.2 going down"), Eof())),
    "554 5.7.1": Mode((Reply(554, "5.7.1 not you"),)),
    "552 5.4.0": Mode((Reply(552, "5.4.0 over quota"),)),
    "reset": Mode((Reset(),)),
    "EOF": Mode((Eof(),)),
    "garbled": Mode((Raw(b"###\r\n"), Eof())),
    "slow": Mode((Delay(0.05),)),
    "silence": Mode((BlackHole(),)),
    "550 5.1.1": Mode((Reply(550, "5.1.1 no such user"),)),
    "550": Mode((Reply(550, "no such user"),)),
}
"""At connect, ehlo, mail, rcpt, data and in the body. The last two only at RCPT."""


@dataclass(frozen=True)
class SinkPlan:
    """What a sink does when. Whatever is not planned goes as a server usually does it.

    ``users``: by user id, for each offer of a mail in turn, ``phase: mode`` with phase rcpt, data, body or
    dot. ``connections`` and ``mails``: by number of the connection (counted from 1) or of the MAIL command, a
    mode; ``greetings``: by number of EHLO. ``always``: by phase, whatever the number.
    """

    users: Mapping[str, Sequence[Mapping[str, str]]]
    connections: Mapping[str, str]
    greetings: Mapping[str, str]
    mails: Mapping[str, str]
    always: Mapping[str, str]

    @classmethod
    def usual(cls) -> SinkPlan:
        """A server that accepts everything."""
        return cls({}, {}, {}, {}, {})

    @classmethod
    def always_at(cls, phase: str, mode: str) -> SinkPlan:
        """A server that does one thing at a phase, until `Sink.always` says otherwise."""
        return cls({}, {}, {}, {}, {phase: mode})

    @classmethod
    def of_users(cls, users: Mapping[str, Sequence[Mapping[str, str]]]) -> SinkPlan:
        """A server that treats some users in a way of their own."""
        return cls(users, {}, {}, {}, {})


class Sink(ScriptedSmtpServer):
    """Serves one schedule. ``record`` gets accepted mails, ``log`` every dot that came."""

    def __init__(self, plan: SinkPlan, record: Path, log: Path) -> None:
        super().__init__(record=record)
        self._plan = plan
        self._always = dict(plan.always)
        self._log = log
        self._seen: Counter[str] = Counter()
        self._here = threading.local()
        self._released = threading.Event()
        self._told = threading.Event()

    def steps_for(self, phase: str, line: str = "", body_bytes: int = 0) -> Sequence[Step] | None:
        """Find the planned mode of this moment."""
        if phase == "body" and not body_bytes:
            return None
        with self._changed:
            mode = self._mode(phase, line)
            steps: Sequence[Step] = ()
            if phase == "dot":
                steps = self._dot(mode)
            elif mode is not None:
                steps = _steps(phase, mode)
        if not steps:
            return None
        return [part for step in steps for part in self._in_time(step)]

    def tell(self) -> None:
        """Give the answers that were held back."""
        self._told.set()

    def always(self, phase: str, mode: str | None) -> None:
        """From now on do this at a phase; None: as usual again."""
        with self._changed:
            if mode is None:
                self._always.pop(phase, None)
            else:
                self._always[phase] = mode

    def settle(self, seconds: float) -> bool:
        """Wait until every connection has ended, so that what was accepted is written down.

        Whoever was kept waiting in silence is let go: its client is gone.
        """
        deadline = time.monotonic() + seconds
        self._released.set()
        ended = all(
            dialogue.ended.wait(max(0.0, deadline - time.monotonic())) for dialogue in list(self.dialogues)
        )
        self._released.clear()
        return ended

    def reached(self) -> dict[str, int]:
        """How often each phase was reached."""
        with self._changed:
            return dict(self._reached)

    def _in_time(self, step: Step) -> tuple[Step, ...]:
        if isinstance(step, BlackHole):
            return Until(self._released), Reset()
        return (Until(self._told),) if step is UNTIL_TOLD else (step,)

    def _mode(self, phase: str, line: str) -> str | None:
        if phase == "rcpt":
            user = line.partition("<")[2].partition("@")[0].removeprefix("user")
            self._seen[f"offers {user}"] += 1
            self._here.user, self._here.body = user, False
        if phase in self._always:
            return self._always[phase]
        if phase in ("connect", "ehlo", "mail"):
            self._seen[phase] += 1
            of_phase = {
                "connect": self._plan.connections,
                "ehlo": self._plan.greetings,
                "mail": self._plan.mails,
            }[phase]
            return of_phase.get(str(self._seen[phase]))
        if phase == "body":
            if self._here.body:
                return None
            self._here.body = True
        planned_for: str = getattr(self._here, "user", "")
        offers = self._plan.users.get(planned_for, ())
        number = self._seen[f"offers {planned_for}"]
        mode = offers[number - 1].get(phase) if 0 < number <= len(offers) else None
        if mode is not None and phase != "dot":
            self._note(phase, mode, None)
        return mode

    def _dot(self, mode: str | None) -> Sequence[Step]:
        name = mode or "accept"
        self._note("dot", name, DOT_MODES[name].answer)
        return DOT_MODES[name].steps

    def _note(self, phase: str, mode: str, answer: str | None) -> None:
        entry = {"user_id": self._here.user, "phase": phase, "mode": mode, "answer": answer}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _steps(phase: str, mode: str) -> Sequence[Step]:
    steps = EARLY_MODES[mode].steps
    if steps == (Delay(0.05),):
        usual = {
            "connect": Reply(220, "scripted.example.com ESMTP"),
            "ehlo": Reply(250, "scripted.example.com"),
            "data": Reply(354, "go on"),
        }
        return (*steps, usual.get(phase, Reply(250, "Ok"))) if phase != "body" else steps
    return steps
