"""Visits every state of a model, breadth first, so that the first fault found is reached in the fewest steps.

Knows only steps from state to state. Must not know what the states mean. The well-kept checkers are programs
of their own (TLC, SPIN, Stateright); a search over hashable values is shorter than their installation.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

AnyState = TypeVar("AnyState", bound=Hashable)


class Step(NamedTuple, Generic[AnyState]):
    """One thing that can happen: in words, where it leads, and whether it is a fault that may never come."""

    words: str
    to: AnyState
    fault: bool = False


@dataclass(frozen=True)
class Model(Generic[AnyState]):
    """What is checked.

    ``canonical`` maps states that differ only in names to one of them. ``broken`` says in words what a state
    breaks, None where all is well. ``settled``: nothing more needs to happen here. From every state some path
    without a fault must lead to a settled one.
    """

    initial: AnyState
    steps: Callable[[AnyState], Iterable[Step[AnyState]]]
    canonical: Callable[[AnyState], AnyState]
    broken: Callable[[AnyState], str | None]
    settled: Callable[[AnyState], bool]


@dataclass(frozen=True)
class Checked(Generic[AnyState]):
    """What the search found. ``trace`` leads to the fault in the fewest steps; empty when there is none."""

    states: int
    transitions: int
    seconds: float
    broken: str | None
    trace: tuple[Step[AnyState], ...]

    @property
    def holds(self) -> bool:
        """Whether no state breaks anything and none is stuck."""
        return self.broken is None


def check(
    model: Model[AnyState], *, observe: Callable[[AnyState, AnyState], None] | None = None
) -> Checked[AnyState]:
    """Visit every reachable state once; stop at the first that breaks something.

    ``observe`` is called with both ends of every transition, for what a caller wants to know about them.
    """
    started = time.perf_counter()
    first = model.canonical(model.initial)
    came_from: dict[AnyState, AnyState | None] = {first: None}
    ordinary_sources: dict[AnyState, list[AnyState]] = {}
    waiting = deque([first])
    transitions = 0
    while waiting:
        state = waiting.popleft()
        for step in model.steps(state):
            transitions += 1
            if observe is not None:
                observe(state, step.to)
            reached = model.canonical(step.to)
            if not step.fault:
                ordinary_sources.setdefault(reached, []).append(state)
            if reached in came_from:
                continue
            came_from[reached] = state
            broken = model.broken(reached)
            if broken is not None:
                trace = _replay(model, _path(came_from, reached))
                return Checked(len(came_from), transitions, time.perf_counter() - started, broken, trace)
            waiting.append(reached)
    stuck = _first_stuck(model, came_from, ordinary_sources)
    trace = () if stuck is None else _replay(model, _path(came_from, stuck))
    broken = None if stuck is None else "stuck: nothing but a fault leads on from here"
    return Checked(len(came_from), transitions, time.perf_counter() - started, broken, trace)


def _first_stuck(
    model: Model[AnyState], states: Iterable[AnyState], sources: dict[AnyState, list[AnyState]]
) -> AnyState | None:
    """The state nearest to the beginning from which no ordinary path leads to a settled state."""
    states = list(states)
    saved = {state for state in states if model.settled(state)}
    waiting = list(saved)
    while waiting:
        for source in sources.get(waiting.pop(), ()):
            if source not in saved:
                saved.add(source)
                waiting.append(source)
    return next((state for state in states if state not in saved), None)


def _path(came_from: dict[AnyState, AnyState | None], end: AnyState) -> Sequence[AnyState]:
    path = []
    state: AnyState | None = end
    while state is not None:
        path.append(state)
        state = came_from[state]
    return path[::-1]


def _replay(model: Model[AnyState], path: Sequence[AnyState]) -> tuple[Step[AnyState], ...]:
    """Walk the path again without renaming, so that names stay the same from the first step to the last."""
    state = model.initial
    trace = []
    for reached in path[1:]:
        step = next(step for step in model.steps(state) if model.canonical(step.to) == reached)
        trace.append(step)
        state = step.to
    return tuple(trace)
