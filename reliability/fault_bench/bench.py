"""Plays rows and schedules in worker processes, on a Postgres server of the bench's own.

A task is a row (with the package, or without one protection) or a block of schedules. Workers keep their
process servers and sinks; when a worker ends, however it ends, these end by themselves.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from local_stack.postgres import SUPERUSER, PostgresServer, temporary_server
from reliability.fault_bench.fault import Observation, Setting
from reliability.fault_bench.processes import BenchError
from reliability.fault_bench.schedule import plan_schedule
from reliability.fault_bench.schedules import play_schedule
from reliability.fault_bench.stage import Stage
from reliability.fault_bench.staging import forget, staged
from reliability.fault_bench.table import all_rows
from reliability.fault_bench.variants import copy_package, make_variant

BLOCK = 25
"""Schedules in one task, and in one line of the results."""

VARIANT_PLAYS = 3
"""How often a package without a protection is played until it does harm: some harm needs a certain moment."""

PORTS_OF_A_PLAY = range(31200, 31300)


@dataclass(frozen=True)
class Place:
    """What every worker must know."""

    folder: Path
    server: PostgresServer
    original: Path
    thorough: bool


@dataclass(frozen=True)
class Task:
    """A row by number, with ``variant`` the number of one of its variants, or a block of seeds."""

    row: int | None = None
    variant: int | None = None
    seed: int = 0
    schedules: int = 0


@dataclass
class Result:
    """What came of a task."""

    task: Task
    observation: Observation | None = None
    block: Block | None = None
    error: str | None = None
    seconds: float = 0.0


@dataclass
class Block:
    """The sums of consecutive schedules, as they stand in the results file."""

    first_seed: int
    schedules: int
    runs: int = 0
    kills: int = 0
    max_copies: int = 0
    lost: int = 0
    in_doubt: int = 0
    in_doubt_expected: int = 0
    seconds: float = 0.0
    kill_points: dict[str, int] = field(default_factory=dict)
    not_reached: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    package: str = ""

    def add(self, seed: int, seen: Observation, not_reached: Counter[str]) -> None:
        """Add one schedule."""
        self.runs += seen.runs
        self.kills += seen.kills
        self.max_copies = max(self.max_copies, seen.max_copies)
        self.lost += seen.lost
        self.in_doubt += seen.in_doubt
        self.in_doubt_expected += seen.in_doubt_expected
        self.kill_points = dict(Counter(self.kill_points) + Counter(seen.kill_points))
        self.not_reached = dict(Counter(self.not_reached) + not_reached)
        if not seen.holds:
            self.findings.append({"seed": seed, "problems": list(seen.problems)})

    def as_line(self) -> str:
        """One line of the results file."""
        return json.dumps(asdict(self), sort_keys=True)


@contextmanager
def bench_place(*, thorough: bool) -> Iterator[Place]:
    """A server, a folder and a copy of the package; nothing of them is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-fault-bench-", dir=_quick_folder()))
    folder.chmod(0o711)
    try:
        with temporary_server() as server:
            _make_logging_in_cheap(server)
            yield Place(folder, server, copy_package(folder / "package"), thorough)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def package_digest(place: Place) -> str:
    """Names the code under test: results of other code do not count."""
    digest = hashlib.sha256()
    for file in sorted(place.original.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(place.original)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def play_all(place: Place, tasks: list[Task], workers: int) -> Iterator[Result]:
    """Play tasks in so many processes, results as they come. Whoever stops listening ends the workers."""
    pool = multiprocessing.get_context("spawn").Pool(workers, initializer=_begin, initargs=(place,))
    try:
        yield from pool.imap_unordered(_play, tasks)
        pool.close()
    finally:
        pool.terminate()
        pool.join()


def play_here(place: Place, task: Task) -> Result:
    """Play one task in this process."""
    _begin(place, ignore_interrupt=False)
    return _play(task)


_place: list[Place] = []
_stage: list[tuple[Any, Stage]] = []


def _begin(place: Place, *, ignore_interrupt: bool = True) -> None:
    if ignore_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main program ends its workers
    _place[:] = [place]


def _play(task: Task) -> Result:
    started = time.monotonic()
    result = Result(task)
    try:
        if task.row is None:
            result.block = _play_block(task)
        else:
            result.observation = _play_row(task)
    except Exception as error:  # noqa: BLE001  (one task's failure must not take the others with it)
        result.error = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - started
    return result


def _play_row(task: Task) -> Observation:
    seen = _play_once(task, task.seed)
    for number in range(1, VARIANT_PLAYS):
        if task.variant is not None and seen.holds:
            seen = _play_once(task, task.seed + number)
    return seen


def _play_once(task: Task, seed: int) -> Observation:
    place = _place[0]
    fault = all_rows()[task.row or 0].fault
    if fault.play is None:
        raise BenchError("this row cannot be played")
    folder = place.folder / f"row_{os.getpid()}_{secrets.token_hex(4)}"
    folder.mkdir()
    tree = place.original
    if task.variant is not None:
        tree = make_variant(fault.without[task.variant], place.original, folder / "package")
    try:
        (folder / "play").mkdir()
        (folder / "play").chmod(0o711)
        folder.chmod(0o711)
        setting = Setting(folder / "play", PORTS_OF_A_PLAY, place.server, tree, place.thorough)
        return fault.play(setting, random.Random(seed))  # noqa: S311  (to be played again)
    finally:
        if task.variant is not None:
            forget(tree)
        shutil.rmtree(folder, ignore_errors=True)


def _play_block(task: Task) -> Block:
    place = _place[0]
    if not _stage:
        folder = place.folder / f"schedules_{os.getpid()}"
        folder.mkdir()
        setting = Setting(folder, PORTS_OF_A_PLAY, place.server, place.original, place.thorough)
        manager = staged(setting)
        _stage.append((manager, manager.__enter__()))
    stage = _stage[0][1]
    block = Block(task.seed, task.schedules)
    started = time.monotonic()
    for seed in range(task.seed, task.seed + task.schedules):
        seen = play_schedule(stage, plan_schedule(seed))
        block.add(seed, seen, stage.not_reached)
    block.seconds = round(time.monotonic() - started, 1)
    return block


def _make_logging_in_cheap(server: PostgresServer) -> None:
    """Hash the password once only: thousands of processes log in, and this is no test of passwords."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(SUPERUSER), sql.Literal(server.password)
            )
        )


def _quick_folder() -> str | None:
    """Memory, where the machine offers it, so that flushing a line per mail to the disk costs nothing."""
    memory = Path("/dev/shm")  # noqa: S108  (mkdtemp makes a folder of its own in it)
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None
