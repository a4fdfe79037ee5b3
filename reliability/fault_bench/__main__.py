"""`make chaos`: play faults and schedules, print the table, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from local_stack.interruption import sigterm_interrupts
from reliability.fault_bench.bench import (
    BLOCK,
    Block,
    Place,
    Result,
    Task,
    bench_place,
    package_digest,
    play_all,
    play_here,
)
from reliability.fault_bench.fault import Observation
from reliability.fault_bench.points import POINTS
from reliability.fault_bench.table import Played, Row, all_rows, in_words
from reliability.mutants import MUTANTS, Mutant, MutantResult, run_mutants

ENOUGH_KILLS = 30
"""How often the long run should kill at every point."""

ROUNDS_OF_THE_LONG_RUN = 3

MUTANTS_OF_THE_SHORT_RUN = 3


def main() -> int:
    """Play, print, and return 0 only when every verdict is as it should be."""
    rows = all_rows()
    options = _options(rows)
    started = time.monotonic()
    chosen = [number for number, row in enumerate(rows) if _is_chosen(row, options)]
    with bench_place(thorough=options.long) as place:
        digest = package_digest(place)
        earlier = _earlier_blocks(options.results, digest) if options.results else []
        tasks = _block_tasks(options, earlier) + _row_tasks(rows, chosen, options)  # the longest task first
        here = [task for task in tasks if task.row is not None and rows[task.row].needs_airflow]
        results = []
        try:
            for result in _play(place, [task for task in tasks if task not in here], here, options):
                results.append(result)
                _show(result, rows, len(results), len(tasks), started)
                if result.block is not None and options.results:
                    result.block.package = digest
                    _append(options.results, result.block)
        finally:
            _stop_airflow()
    played = [_played(rows[number], number, results) for number in chosen]
    blocks = [
        block for block in earlier if options.seed <= block.first_seed < options.seed + options.schedules
    ]
    blocks += [result.block for result in results if result.block is not None]
    block_errors = [result.error for result in results if result.error and result.task.row is None]
    mutants, mutants_killed = _try_mutants(_mutants(options))
    print("\n" + in_words(played) + "\n")
    _show_points(blocks, thorough=options.long)
    for block in blocks:
        for finding in block.findings:
            print(f"schedule {finding['seed']}: {'; '.join(finding['problems'])}")
    for error in block_errors:
        print(f"bench error: {error}")
    seen: list[Block | Observation] = [*blocks, *(play for row in played for play in row.plays)]
    summary = {
        "schedules": sum(block.schedules for block in blocks),
        "kills": sum(one.kills for one in seen),
        "max_copies": max((one.max_copies for one in seen), default=0),
        "lost": sum(one.lost for one in seen),
        "in_doubt": sum(one.in_doubt for one in seen),
        "in_doubt_expected": sum(one.in_doubt_expected for one in seen),
        "mutants": mutants,
        "mutants_killed": mutants_killed,
        "seconds": round(time.monotonic() - started, 1),
        "seed": options.seed,
    }
    print(json.dumps(summary), flush=True)
    good = all(row.is_good for row in played) and not block_errors and mutants == mutants_killed
    return 0 if good and not any(block.findings for block in blocks) else 1


def _options(rows: Sequence[Row]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=None, help="how many seeded schedules")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; each schedule has the next one")
    parser.add_argument("--long", action="store_true", help="all points, large sizes, rows under Airflow")
    parser.add_argument(
        "--rows",
        default="",
        help="only rows with this in their name, or one of several divided by |; 'none' for schedules only",
    )
    parser.add_argument("--results", type=Path, help="append a line per block here, and go on where it ends")
    parser.add_argument("--workers", type=int, default=max(2, min(4, os.cpu_count() or 2)))
    options = parser.parse_args()
    if options.schedules is None:
        options.schedules = 10_000 if options.long else 25
    if options.schedules < 0 or options.workers < 1:
        parser.error("schedules are 0 or more, workers 1 or more")
    if options.rows != "none" and not any(_is_chosen(row, options) for row in rows):
        parser.error(
            f"no row has {options.rows!r} in its name; make chaos N=0 plays and names those of the short run"
        )
    if options.rows == "none" and not options.schedules:
        parser.error("there is nothing to play: no rows and no schedules")
    return options


def _is_chosen(row: Row, options: argparse.Namespace) -> bool:
    if options.rows == "none":
        return False
    if options.rows:
        return any(part.strip() in row.fault.name.lower() for part in options.rows.lower().split("|"))
    return row.fault.play is None or options.long or not row.fault.slow


def _row_tasks(rows: list[Row], chosen: list[int], options: argparse.Namespace) -> list[Task]:
    tasks = []
    for number in chosen:
        fault = rows[number].fault
        if fault.play is None:
            continue
        rounds = (
            ROUNDS_OF_THE_LONG_RUN if options.long and not (fault.slow or rows[number].needs_airflow) else 1
        )
        tasks += [Task(row=number, seed=options.seed + turn) for turn in range(rounds)]
        # the short run has no time for what takes an Airflow half a minute each
        if options.long or options.rows or not rows[number].needs_airflow:
            tasks += [
                Task(row=number, variant=variant, seed=options.seed) for variant in range(len(fault.without))
            ]
    return tasks


def _block_tasks(options: argparse.Namespace, earlier: list[Block]) -> list[Task]:
    done = {(block.first_seed, block.schedules) for block in earlier}
    end = options.seed + options.schedules
    blocks = [(first, min(BLOCK, end - first)) for first in range(options.seed, end, BLOCK)]
    return [Task(seed=first, schedules=count) for first, count in blocks if (first, count) not in done]


def _play(place: Place, tasks: list[Task], here: list[Task], options: argparse.Namespace) -> Iterator[Result]:
    """Play the tasks, those under Airflow in this process.

    In the short run, which has to be quick, these are played all at once and beside the others; in the long
    run one by one and alone, since some of them kill what the others need.
    """
    beside = ThreadPoolExecutor(max_workers=max(1, len(here)))
    try:
        plays = [] if options.long else [beside.submit(play_here, place, task) for task in here]
        if tasks:
            yield from play_all(place, tasks, options.workers)
        for play in plays:
            yield play.result()
        if options.long:
            for task in here:
                yield play_here(place, task)
    finally:
        beside.shutdown(wait=False, cancel_futures=True)


def _stop_airflow() -> None:
    """Stop what rows under Airflow started, before their Postgres server goes."""
    if "reliability.fault_bench.airflow_stack" in sys.modules:
        import_module("reliability.fault_bench.airflow_stack").stop_airflow_stacks()


def _show(result: Result, rows: list[Row], number: int, tasks: int, started: float) -> None:
    task = result.task
    if task.row is None:
        what = f"schedules {task.seed} to {task.seed + task.schedules - 1}"
        word = result.error or ("FINDINGS" if result.block and result.block.findings else "hold")
    else:
        fault = rows[task.row].fault
        without = (
            "" if task.variant is None else f", without the protection ({fault.without[task.variant].name})"
        )
        what = f"{fault.name}{without}"
        word = result.error or _in_a_word(result.observation)
    clock = time.monotonic() - started
    print(f"[{clock:6.0f} s] {number}/{tasks} {what}: {word} ({result.seconds:.1f} s)", flush=True)


def _in_a_word(seen: Observation | None) -> str:
    """Say whether the promise held, and the figures: of a missing protection they say what it costs."""
    if seen is None:
        return "fails"
    verdict = "holds" if seen.holds else "fails"
    return (
        f"{verdict}, {seen.runs} runs, {seen.kills} kills, at most {seen.max_copies} copies,"
        f" {seen.lost} lost, {seen.in_doubt} in doubt of {seen.in_doubt_expected} expected"
    )


def _played(row: Row, number: int, results: list[Result]) -> Played:
    mine = [result for result in results if result.task.row == number]
    without: dict[str, list[Observation]] = {}
    for result in mine:
        if result.task.variant is not None and result.observation is not None:
            without.setdefault(row.fault.without[result.task.variant].name, []).append(result.observation)
    return Played(
        row.fault,
        [result.observation for result in mine if result.task.variant is None and result.observation],
        without,
        [result.error for result in mine if result.error],
    )


def _show_points(blocks: list[Block], *, thorough: bool) -> None:
    kills: Counter[str] = Counter()
    for block in blocks:
        kills.update(block.kill_points)
    if not blocks:
        return
    fewest = min(POINTS, key=lambda point: kills[point])
    every = f"{sum(kills.values())} kills in schedules at {len(kills)} points"
    print(f"{every}; fewest: {kills[fewest]} at '{fewest}'")
    few = [f"{point} ({kills[point]})" for point in POINTS if kills[point] < ENOUGH_KILLS]
    if thorough and few:
        print(f"fewer than {ENOUGH_KILLS} kills: {', '.join(few)}")


def _earlier_blocks(results: Path, digest: str) -> list[Block]:
    """What stands in the results file of this very package."""
    names = {field.name for field in fields(Block)}
    lines = results.read_text().splitlines() if results.exists() else []
    entries = [json.loads(line) for line in lines]
    return [Block(**entry) for entry in entries if entry.keys() == names and entry["package"] == digest]


def _append(results: Path, block: Block) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(block.as_line() + "\n")


def _mutants(options: argparse.Namespace) -> Sequence[Mutant]:
    """All in the long run, a few of them in the short one, none where only some rows are asked for."""
    if options.rows:
        return ()
    return MUTANTS if options.long else MUTANTS[:: -(-len(MUTANTS) // MUTANTS_OF_THE_SHORT_RUN)]


def _try_mutants(mutants: Sequence[Mutant]) -> tuple[int, int]:
    """How many mutants of the package its tests were shown, and how many they noticed."""
    if not mutants:
        return 0, 0
    print(f"{len(mutants)} of {len(MUTANTS)} mutants of the package are shown to its tests", flush=True)
    results = run_mutants(mutants, told=_show_mutant)
    return len(results), sum(result.killed for result in results)


def _show_mutant(result: MutantResult) -> None:
    by = f"caught by {result.killed_by}" if result.killed else "NOT CAUGHT"
    print(f"mutant {result.name}: {by} ({result.seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
