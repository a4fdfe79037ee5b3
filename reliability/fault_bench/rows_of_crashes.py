"""Rows: the sender killed, stopped and asked to end, at named points and past its lease."""

from __future__ import annotations

import random
import signal
import time
from datetime import timedelta
from pathlib import Path

from bench.throttle import largest_excess
from reliability.fault_bench import variants
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from reliability.fault_bench.points import (
    AFTER_GATE_POINTS,
    BEFORE_GATE_POINTS,
    BEGINNING_OF_THROTTLE,
    LAST_POINTS,
    PLANNING_POINTS,
    POINTS,
    THROTTLE_POINTS,
    read_journal,
)
from reliability.fault_bench.processes import BenchError, Process
from reliability.fault_bench.schedules import observe
from reliability.fault_bench.sink import SinkPlan
from reliability.fault_bench.stage import CAMPAIGN, DAILY, Stage
from reliability.fault_bench.staging import staged

_AFTER_A_SEND = ("gate: before record_outcomes",)
_ALWAYS = ("body: 0/20", "body: 19/20", "body: whole", "ask: before", "gate: before commit")

_MAILS_PER_SECOND, _CONNECTIONS = 8, 2
_IN_A_THROTTLED_MAIL = ("offer: done", "ask: passed", "dot: written", "answer: read", "record: committed")


def _killed_before_gate(setting: Setting, chance: random.Random) -> Observation:
    """Kill a run at each point in turn, with nothing accepted, then let one run through."""
    points = [
        point for point in (*PLANNING_POINTS, *BEFORE_GATE_POINTS) if point not in (*_ALWAYS, *_AFTER_A_SEND)
    ]
    if not setting.thorough:
        points = chance.sample(points, 10)
    problems: list[str] = []
    with staged(setting) as stage:
        users = stage.add_users(4)
        stage.open_sink()
        for point in sorted({*points, *_ALWAYS}, key=POINTS.index):  # as a run comes by: each is still ahead
            problems += _killed_run(stage, point)
        accepted = sum(stage.mails().copies.values())
        stage.run_until_done()
        if accepted:
            problems.append(f"{accepted} mails were accepted before a gate was passed")
        return observe(stage, users, problems=tuple(problems))


def _killed_after_gate(setting: Setting, chance: random.Random) -> Observation:
    """Kill a run at each point in turn; each may leave its connections in doubt, and no more."""
    points = (*AFTER_GATE_POINTS, *_AFTER_A_SEND, *LAST_POINTS)
    problems: list[str] = []
    with staged(setting) as stage:
        connections = chance.choice((1, 3))
        stage.write_campaign(CAMPAIGN, connections=connections)
        users: list[str] = []
        stage.open_sink()
        for point in points * (3 if setting.thorough else 1):
            before = len(stage.left_open)
            users += stage.add_users(3, first=1 + len(users))
            problems += _killed_run(stage, point)
            if len(stage.left_open) - before > connections:
                problems.append(f"a kill at {point} left more in doubt than the task has connections")
        told = stage.ledger.execute(
            "SELECT count(*) FROM lifecycle.alerts WHERE kind = 'in_doubt'"
        ).fetchone()
        if stage.left_open and not (told and told[0]):
            problems.append("sends are in doubt, and no alert says so")
        stage.run_until_done()
        stage.run(*DAILY)
        return observe(stage, users, problems=tuple(problems))


def _killed_run(stage: Stage, point: str) -> list[str]:
    process = stage.run(*DAILY, kill=(point, 1))
    stage.let_time_pass()
    stage.run("sweep")
    if process.was_killed:
        return []
    return [f"the point '{point}' was not reached: {process.outcome['error']}"]


def _killed_while_throttled(setting: Setting, chance: random.Random) -> Observation:
    """Kill a throttled sender at each point in turn; a second one goes on as soon as its leases are free."""
    points = [*THROTTLE_POINTS, *_IN_A_THROTTLED_MAIL]
    if not setting.thorough:
        points = [chance.choice(THROTTLE_POINTS), *chance.sample(_IN_A_THROTTLED_MAIL, 2)]
    problems: list[str] = []
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=_CONNECTIONS)
        stage.write(
            "throttles.yaml",
            f"lifecycle_smtp:\n  mails_per_second: {_MAILS_PER_SECOND}\n  connections: {_CONNECTIONS}\n",
        )
        users: list[str] = []
        stage.open_sink()
        for point in points:
            users += stage.add_users(10, first=1 + len(users))
            passage = 1 if point in BEGINNING_OF_THROTTLE else chance.randint(2, 4)
            killed = stage.run(*DAILY, kill=(point, passage))
            if not killed.was_killed:
                problems.append(f"the point '{point}' was not reached: {killed.outcome['error']}")
            stage.let_time_pass()
            stage.run(*DAILY)
        stage.run_until_done()
        excess = largest_excess(stage.arrivals(), _MAILS_PER_SECOND)
        if excess > _CONNECTIONS:
            problems.append(f"{excess:.1f} mails more than {_MAILS_PER_SECOND} a second, not {_CONNECTIONS}")
        return observe(stage, users, problems=tuple(problems))


def _asked_to_end(setting: Setting, chance: random.Random) -> Observation:
    """SIGTERM while dots wait for answers that take a second."""
    connections = chance.choice((2, 4))
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=connections)
        users = stage.add_users(20)
        stage.run("extract", "filter", "limit")
        stage.open_sink(SinkPlan.always_at("dot", "accept after a second"))
        process = stage.start("send")
        _wait_for_dots(stage, process, connections)
        process.signal(signal.SIGTERM)
        asked_at = time.monotonic()
        stage.finish(process)
        seconds = time.monotonic() - asked_at
        gated = sum(len(entry.get("gated", ())) for entry in read_journal(Path(process.job["journal"])))
        dots = stage.sink("reached")["dot"]
        problems = []
        if gated > 2 * connections:
            problems.append(
                f"{gated} passed the gate although {dots} dots were written when it was asked to end"
            )
        if seconds > 15:
            problems.append(f"it took {seconds:.0f} s to end")
        stage.let_time_pass()
        stage.run("sweep")
        doubts = stage.count("in_doubt")
        if doubts:
            problems.append(f"{doubts} are in doubt although the server answered in time")
        stage.sink("always", phase="dot", mode=None)
        stage.run_until_done()
        return observe(stage, users, problems=tuple(problems))


def _wait_for_dots(stage: Stage, process: Process, number: int) -> None:
    deadline = time.monotonic() + 60
    while stage.sink("reached").get("dot", 0) < number:
        if process.has_ended() or time.monotonic() > deadline:
            raise BenchError("the sender did not get as far as the dots")
        time.sleep(0.01)


def _stopped_past_its_lease(setting: Setting, chance: random.Random) -> Observation:
    """SIGSTOP before the gate, the lease runs out, a second worker does the work, SIGCONT."""
    with staged(setting) as stage:
        users = stage.add_users(6)
        stage.run("extract", "filter", "limit")
        stage.open_sink()
        # before the sender looks at the clock: the ten seconds would stand in front of what this row tests
        process = stage.start("send", stop=("offer: done", chance.randint(1, 3)))
        if not process.wait_until_stopped():
            raise BenchError("the sender ended before it stopped itself")
        stage.let_time_pass(timedelta(minutes=2))
        stage.run("send")
        process.signal(signal.SIGCONT)
        stage.finish(process)
        stage.run_until_done()
        return observe(stage, users)


def _stopped_after_the_gate(setting: Setting, chance: random.Random) -> Observation:
    """SIGSTOP between the gate and the check of time; the sweep; a person settles; SIGCONT."""
    with staged(setting) as stage:
        users = stage.add_users(2)
        stage.run("extract", "filter", "limit")
        stage.open_sink()
        process = stage.start("send", stop=("ask: passed", chance.randint(1, 2)))
        if not process.wait_until_stopped():
            raise BenchError("the sender ended before it stopped itself")
        time.sleep(10.5)  # the ten seconds are the machine's clock, which nobody can shift
        stage.let_time_pass()
        stage.run("sweep")
        settled = stage.run("settle").outcome["error"]
        problems = [] if settled is None else [f"a person could not settle: {settled}"]
        stage.run_until_done()
        process.signal(signal.SIGCONT)
        stage.finish(process)
        return observe(stage, users, problems=tuple(problems))


FAULTS: Faults = (
    Fault(
        "SIGKILL before the gate, at every statement and 20 cuts of the body",
        "0 accepted, the rerun makes 1",
        "nothing is accepted or recorded before the gate",
        _killed_before_gate,
        (variants.DOT_BEFORE_GATE,),
    ),
    Fault(
        "SIGKILL after the gate, inside and after the dot, before the record",
        "at most 1, in doubt, told, never resent",
        "only evidence or a person ends a doubt",
        _killed_after_gate,
        (variants.SWEPT_TO_READY,),
    ),
    Fault(
        "sender killed while throttled, a second one goes on",
        "at most 1, never more than rate x t + connections",
        "moments are granted by a row of the ledger, which outlives whoever took them",
        _killed_while_throttled,
        (variants.NOT_SPACED,),
    ),
    Fault(
        "SIGTERM while dots wait for answers",
        "nothing in doubt, no gate after the signal",
        "answers under way are collected and recorded",
        _asked_to_end,
        (variants.NO_WAIT_FOR_ANSWERS,),
    ),
    Fault(
        "SIGSTOP past the lease, a second worker, SIGCONT",
        "1 each",
        "the row's state at the gate; triggers and a check behind it",
        _stopped_past_its_lease,
        (variants.NO_GUARD_OF_STATE,),
    ),
    Fault(
        "SIGSTOP between gate and dot, sweep, settled by a person, SIGCONT",
        "no dot is written, at most 1",
        "the dot is written within 10 s or not at all",
        _stopped_after_the_gate,
        (variants.NO_CHECK_OF_TIME,),
    ),
)
