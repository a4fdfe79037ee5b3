"""A schedule: users, connections, answers of the sink, kills and the order of things, all from one seed.

Pure: the same seed gives the same plan, whoever asks. `schedules` plays it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reliability.fault_bench.points import (
    AFTER_GATE_POINTS,
    BEFORE_GATE_POINTS,
    LAST_POINTS,
    PLANNING_POINTS,
    POINTS,
)
from reliability.fault_bench.sink import DOT_MODES, EARLY_MODES, SILENT_MODES, SinkPlan

SHARE_WITH_KILLS = 0.6
SHARE_WITH_ANSWERS = 0.5
SHARE_WITH_SILENCE = 0.04

TIMED = ("accept after a second", "accept, answer when told")
"""Modes that only rows play."""

_ONLY_AT_RCPT = ("550 5.1.1", "550")


@dataclass(frozen=True)
class Kill:
    """A run that ends itself at the ``passage``-th passage of a point."""

    point: str
    passage: int


@dataclass(frozen=True)
class Schedule:
    """What happens. ``kills``: one run each, before runs without any; ``workers`` at once in each run."""

    seed: int
    users: int
    batch_size: int
    connections: int
    workers: int
    kills: tuple[Kill, ...]
    sweeps_between: bool
    sink: SinkPlan

    @property
    def is_silent(self) -> bool:
        """Whether the sink keeps somebody waiting, so that time limits must be short."""
        modes = [
            *(mode for offers in self.sink.users.values() for offer in offers for mode in offer.values()),
            *self.sink.connections.values(), *self.sink.greetings.values(), *self.sink.mails.values(),
        ]  # fmt: skip
        return any(mode in (*SILENT_MODES, "silence") for mode in modes)


def plan_schedule(seed: int) -> Schedule:
    """Make the schedule of a seed. Kill points are dealt out in turn, so that every one has its share."""
    chance = random.Random(seed)  # noqa: S311  (a plan that can be repeated is the point)
    users = chance.choice((1, 2, 3, 3, 4, 5, 6, 8, 12))
    connections = chance.choice((1, 1, 2, 3, 4))
    kills = _kills(chance, seed, users) if chance.random() < SHARE_WITH_KILLS else ()
    with_answers = chance.random() < SHARE_WITH_ANSWERS
    return Schedule(
        seed=seed,
        users=users,
        batch_size=chance.choice((1, 2, 5, 100)),
        connections=connections,
        workers=2 if not kills and chance.random() < 0.15 else 1,
        kills=kills,
        sweeps_between=chance.random() < 0.5,
        sink=_sink_plan(chance, users) if with_answers else SinkPlan.usual(),
    )


def _kills(chance: random.Random, seed: int, users: int) -> tuple[Kill, ...]:
    points = [POINTS[seed % len(POINTS)]]
    while chance.random() < 0.3 and len(points) < 3:
        points.append(chance.choice(POINTS))
    # a run that is killed while it plans comes before one that is killed while it sends
    points.sort(key=lambda point: point not in PLANNING_POINTS)
    return tuple(Kill(point, _passage(chance, point, users)) for point in points)


def _passage(chance: random.Random, point: str, users: int) -> int:
    once = point in PLANNING_POINTS or point in LAST_POINTS or point.startswith(("lease", "open"))
    if once:
        return 1
    if point in BEFORE_GATE_POINTS or point in AFTER_GATE_POINTS:
        return chance.randint(1, max(1, (users + 1) // 2))
    return 1


def _sink_plan(chance: random.Random, users: int) -> SinkPlan:
    silence = chance.random() < SHARE_WITH_SILENCE
    by_user = {
        str(number): tuple(_offer(chance, silence=silence) for _ in range(chance.randint(1, 2)))
        for number in range(1, users + 1)
        if chance.random() < 0.5
    }
    return SinkPlan(
        users=by_user,
        connections=_some(chance, 3, 0.1),
        greetings=_some(chance, 3, 0.07),
        mails=_some(chance, 6, 0.08),
        always={},
    )


def _offer(chance: random.Random, *, silence: bool) -> Mapping[str, str]:
    phase = chance.choice(("rcpt", "data", "body", "dot", "dot", "dot"))
    if phase == "dot":
        modes: Sequence[str] = [
            mode for mode in DOT_MODES if mode not in TIMED and (silence or mode not in SILENT_MODES)
        ]
    else:
        modes = [
            mode
            for mode in EARLY_MODES
            if (silence or mode != "silence") and (phase == "rcpt" or mode not in _ONLY_AT_RCPT)
        ]
        if phase == "body":
            modes = [mode for mode in modes if mode in ("reset", "EOF", "slow", "421")]
    return {phase: chance.choice(list(modes))}


def _some(chance: random.Random, numbers: int, share: float) -> dict[str, str]:
    modes = [mode for mode in EARLY_MODES if mode not in ("silence", *_ONLY_AT_RCPT)]
    return {str(n): chance.choice(modes) for n in range(1, numbers + 1) if chance.random() < share}
