"""Contestants that send the same mails to the same sink in turns, and what their rates say about each other.

Whatever else the machine does hits all of them, so what counts are ratios within a round. Must not know how
anybody sends.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.sinks import Sink

LATE_SECONDS = 5.0
"""How long the sink may take to show a count that it has reached."""


@dataclass(frozen=True)
class Run:
    """What one contestant did in one round: mails, seconds, microseconds of CPU per mail, MiB of memory.

    ``recorded`` is how many of them the contestant's own books call sent, where it keeps books.
    """

    mails: int
    seconds: float
    cpu: float = 0.0
    memory: float = 0.0
    recorded: int | None = None

    @property
    def rate(self) -> float:
        """Mails per second."""
        return self.mails / self.seconds


@dataclass
class Contestant:
    """Somebody who sends mails to the sink when `send` is called, and what became of it, round by round."""

    name: str
    send: Callable[[], Run]
    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the mails per second."""
        return statistics.median(run.rate for run in self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest rate."""
        rates = [run.rate for run in self.runs]
        return min(rates), max(rates)

    def compete(self, sink: Sink) -> None:
        """Send once, and hold the sink's count against what was sent, and against the contestant's books."""
        before = sink.mails()
        run = self.send()
        deadline = time.monotonic() + LATE_SECONDS
        while sink.mails() - before < run.mails and time.monotonic() < deadline:
            time.sleep(0.05)
        taken = sink.mails() - before
        if taken != run.mails or run.recorded not in {None, taken}:
            recorded = "" if run.recorded is None else f", {run.recorded} recorded as sent"
            raise RuntimeError(f"{self.name}: {run.mails} mails sent{recorded}, {taken} at the sink")
        self.runs.append(run)
        print(f"{self.name}: {run.rate:.1f} mails/s, {run.cpu:.0f} us of CPU per mail",
              file=sys.stderr, flush=True)  # fmt: skip


def ratio(one: Contestant | None, other: Contestant | None) -> float | None:
    """Median over the rounds of the ratio of their rates within a round; None where one did not compete."""
    if one is None or other is None:
        return None
    rounds = zip(one.runs, other.runs, strict=True)
    return statistics.median(mine.rate / theirs.rate for mine, theirs in rounds)


def named(contestants: Sequence[Contestant], name: str) -> Contestant | None:
    """The contestant of that name; None where it did not compete."""
    return next((one for one in contestants if one.name == name), None)


def table(contestants: Sequence[Contestant], measure: str) -> str:
    """A table of all contestants; ``measure`` names the one whose rate the others are shares of."""
    against = named(contestants, measure)
    lines = [f"{'':44}{'mails/s':>9}{'spread':>18}{'of ' + measure:>17}{'us CPU':>8}{'MiB':>7}"]
    for one in contestants:
        share = ratio(one, against)
        low, high = one.spread
        cpu = statistics.median(run.cpu for run in one.runs)
        memory = max(run.memory for run in one.runs)
        lines.append(
            f"{one.name:44}{one.rate:9.1f}{f'{low:.1f}-{high:.1f}':>18}"
            f"{'-' if share is None else format(share, '.4f'):>17}"
            f"{format(cpu, '.0f') if cpu else '-':>8}{format(memory, '.1f') if memory else '-':>7}"
        )
    return "\n".join(lines)
