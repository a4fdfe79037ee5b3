"""Rows: the ledger's server killed, its answers lost."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from typing import Any

import psycopg

from local_stack.ports import free_port
from local_stack.postgres import PostgresServer
from reliability.fault_bench import variants
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from reliability.fault_bench.processes import BenchError
from reliability.fault_bench.schedules import observe
from reliability.fault_bench.stage import CAMPAIGN, DAILY, Stage
from reliability.fault_bench.staging import staged

COMMITS_OF_A_RUN = {1: "plan", 2: "filter", 3: "limit", 4: "lease", 5: "the first gate"}
"""Which answer to COMMIT belongs to which step; the later ones are gates and records."""


def _server_killed(setting: Setting, chance: random.Random) -> Observation:
    """Kill the postmaster again and again while thousands are sent; runs follow one another."""
    number, kills = (4000, 12) if setting.thorough else (600, 2)
    server = PostgresServer(setting.folder / "killed", free_port())
    server.start()
    try:
        with staged(setting, server) as stage:
            stage.write_campaign(CAMPAIGN, connections=4, batch_size=500)
            users = stage.add_users(number)
            stage.run("extract", "filter", "limit")
            stage.open_sink()
            for round_number in range(1, kills + 1):
                _kill_in_mid_send(stage, server, round_number * number // (kills + 1), chance)
            stage.run_until_done()
            seen = observe(stage, users)
            return Observation(**{**vars(seen), "kill_points": {"the ledger's server": kills}})
    finally:
        server.remove()


def _kill_in_mid_send(stage: Stage, server: PostgresServer, sent: int, chance: random.Random) -> None:
    """Kill it at any moment, or while a group of the gate is under way, for which the sender is stopped."""
    in_a_group = chance.random() < 0.5 or stage.runs == 1
    point = ("gate: before pass_gate", chance.randint(3, 30)) if in_a_group else None
    process = stage.start("send", stop=point)
    if in_a_group:
        process.wait_until_stopped()
    while not in_a_group and not process.has_ended() and stage.count("sent") < sent:
        time.sleep(0.02)
    server.kill()
    stage.ledger.close()
    while server.is_running() and not _is_gone(server):
        time.sleep(0.01)
    server.start()
    stage.ledger = server.connect(stage.database)
    if in_a_group and not process.has_ended():
        process.signal(signal.SIGCONT)
    stage.finish(process)
    stage.let_time_pass()


def _is_gone(server: PostgresServer) -> bool:
    with suppress(psycopg.OperationalError):
        server.connect().close()
        return False
    return True


def _commit_lost_at_gate(setting: Setting, chance: random.Random) -> Observation:
    """The answer to COMMIT is cut off at gates and records of a run, one play for each."""
    return _cuts(setting, [{"commits": [number]} for number in _numbers(setting, chance, 5, 12)])


def _commit_lost_elsewhere(setting: Setting, chance: random.Random) -> Observation:
    """The same at planning, filter, limit and lease; and connections cut after so many bytes."""
    cuts: list[dict[str, Any]] = [{"commits": [number]} for number in _numbers(setting, chance, 1, 4)]
    sizes = [chance.randint(1, 6000) for _ in range(12 if setting.thorough else 3)]
    cuts += [{"after_bytes": size, "times": chance.randint(1, 3)} for size in sizes]
    return _cuts(setting, cuts)


def _numbers(setting: Setting, chance: random.Random, first: int, last: int) -> list[int]:
    numbers = list(range(first, last + 1))
    return numbers if setting.thorough else sorted({first, *chance.sample(numbers, 3)})


def _cuts(setting: Setting, cuts: list[dict[str, Any]]) -> Observation:
    seen: list[Observation] = []
    problems: list[str] = []
    with staged(setting) as stage:
        for cut in cuts:
            stage.clear()
            stage.write_campaign(CAMPAIGN, connections=1)
            users = stage.add_users(8)  # a COMMIT for each gate: however they fall together, there are twelve
            stage.open_sink()
            stage.port = stage.network.do("open proxy", target=stage.postgres.port, **cut)
            stage.run(*DAILY)
            if not stage.network.do("cuts", port=stage.port) and "commits" in cut:
                raise BenchError(f"no connection was cut: {cut}")
            stage.network.do("close proxy", port=stage.port)
            stage.port = None
            stage.run_until_done()
            seen.append(observe(stage, users))
            problems += [f"{cut}: {problem}" for problem in seen[-1].problems]
    return Observation(
        runs=sum(one.runs for one in seen),
        kills=0,
        max_copies=max(one.max_copies for one in seen),
        lost=sum(one.lost for one in seen),
        in_doubt=sum(one.in_doubt for one in seen),
        in_doubt_expected=sum(one.in_doubt_expected for one in seen),
        problems=tuple(problems),
    )


FAULTS: Faults = (
    Fault(
        "Postgres killed and restarted again and again during a send",
        "at most 1 each, the sums close",
        "passed only when the answer to COMMIT was read",
        _server_killed,
        (variants.PASSED_WITHOUT_COMMIT,),
    ),
    Fault(
        "the answer to COMMIT lost at gates and records",
        "read back by key, no dot unless it was read",
        "passed only when the answer to COMMIT was read",
        _commit_lost_at_gate,
        (variants.PASSED_WITHOUT_COMMIT,),
    ),
    Fault(
        "the answer to COMMIT lost at plan, filter, limit, lease; cut after n bytes",
        "the step is repeated, 1 each",
        "every step can be repeated: a second plan finds its rows",
        _commit_lost_elsewhere,
        (variants.PLANS_TWICE,),
    ),
)
