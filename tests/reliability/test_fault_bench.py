"""The fault bench itself: plans repeat by seed, promises hold, a missing protection is found out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.ports import free_port
from local_stack.postgres import PostgresServer
from reliability.fault_bench.__main__ import main
from reliability.fault_bench.bench import Block
from reliability.fault_bench.fault import Observation, Patch, Setting, Variant
from reliability.fault_bench.points import PLANNING_POINTS, POINTS, THROTTLE_POINTS, left_open, read_journal
from reliability.fault_bench.processes import PACKAGE_ROOT, BenchError, NetworkProcess, ProcessServer
from reliability.fault_bench.rows_of_crashes import FAULTS
from reliability.fault_bench.schedule import Schedule, plan_schedule
from reliability.fault_bench.schedules import play_schedule
from reliability.fault_bench.sink import SinkPlan
from reliability.fault_bench.stage import DAILY, Stage, prepare_template
from reliability.fault_bench.staging import forget, staged
from reliability.fault_bench.table import Played, all_rows
from reliability.fault_bench.variants import copy_package, make_variant

STOPPED_PAST_LEASE = next(fault for fault in FAULTS if "past the lease" in fault.name)


@pytest.fixture
def stage(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Stage]:
    server = ProcessServer(PACKAGE_ROOT, tmp_path / "server.log")
    network = NetworkProcess(tmp_path / "network.log")
    prepare_template(postgres_server, server, "fault_bench_template", tmp_path)
    postgres_server.create_database("fault_bench", template="fault_bench_template")
    stage = Stage(tmp_path, postgres_server, server, network, "fault_bench")
    yield stage
    stage.close()
    network.close()
    server.close()
    postgres_server.drop_database("fault_bench")
    postgres_server.drop_database("fault_bench_template")


def _kills_one_alone(schedule: Schedule) -> bool:
    """Whether it kills a sender with one connection just after a dot, and nothing else goes wrong."""
    points = [kill.point for kill in schedule.kills]
    return points == ["dot: written"] and schedule.connections == 1 and schedule.sink == SinkPlan.usual()


def test_fault_bench_plans_the_same_for_the_same_seed() -> None:
    assert [plan_schedule(seed) for seed in range(200)] == [plan_schedule(seed) for seed in range(200)]
    assert len({repr(plan_schedule(seed)) for seed in range(200)}) == 200


def test_fault_bench_deals_out_every_kill_point() -> None:
    planned = {kill.point for seed in range(len(POINTS) * 8) for kill in plan_schedule(seed).kills}

    assert planned == set(POINTS)


def test_fault_bench_schedules_keep_the_promise_and_kill_where_they_say(stage: Stage) -> None:
    after_gate = next(seed for seed in range(20_000) if _kills_one_alone(plan_schedule(seed)))

    for seed in (1, 2, after_gate):
        seen = play_schedule(stage, plan_schedule(seed))
        assert seen.holds, seen.problems

    assert stage.kills == {"dot: written": 1}
    assert (seen.kills, seen.in_doubt, seen.in_doubt_expected) == (1, 1, 1)


def test_fault_bench_points_are_those_that_a_first_run_comes_by(stage: Stage) -> None:
    stage.add_users(2)
    stage.open_sink()

    journal = read_journal(Path(stage.run(*DAILY, tell_points=True).job["journal"]))
    passed = list(dict.fromkeys(entry["point"] for entry in journal if "point" in entry))

    planning = [point for point in passed if point.startswith(("extract: ", "filter: ", "limit: "))]
    assert planning == list(PLANNING_POINTS)
    assert set(POINTS) <= set(passed)


def test_fault_bench_points_of_a_throttle_are_those_that_a_throttled_run_comes_by(stage: Stage) -> None:
    stage.write("throttles.yaml", "lifecycle_smtp:\n  mails_per_second: 100\n  connections: 1\n")
    stage.add_users(1)
    stage.open_sink()

    journal = read_journal(Path(stage.run(*DAILY, tell_points=True).job["journal"]))

    assert set(THROTTLE_POINTS) <= {entry["point"] for entry in journal if "point" in entry}


@pytest.mark.slow
def test_fault_bench_finds_a_missing_guard_of_the_gate(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    (variant,) = STOPPED_PAST_LEASE.without
    tree = make_variant(variant, PACKAGE_ROOT, tmp_path / "variant" / "package")
    play = STOPPED_PAST_LEASE.play
    assert play is not None

    seen = play(Setting(tmp_path, range(0), postgres_server, tree), random.Random(1))  # noqa: S311
    forget(tree)

    assert not seen.holds
    assert seen.max_copies == 2


def test_fault_bench_makes_a_ledger_in_a_server_whose_port_another_one_had_before(tmp_path: Path) -> None:
    """A row with a server of its own gets any free port, and a later row may get the same."""
    tree, port = copy_package(tmp_path / "package"), free_port()
    try:
        for number in ("one", "two"):
            server = PostgresServer(tmp_path / number, port)
            try:
                server.start()
                with staged(Setting(tmp_path, range(0), server, tree)) as stage:
                    assert stage.count("ready") == 0
            finally:
                server.remove()
    finally:
        forget(tree)


def test_fault_bench_says_which_patch_has_fallen_behind(tmp_path: Path) -> None:
    outdated = Variant("nothing", (Patch("lifecycle_emails/ledger/gate.py", "no such text", ""),))

    with pytest.raises(BenchError, match=r"gate\.py holds the text to replace 0 times"):
        make_variant(outdated, PACKAGE_ROOT, tmp_path / "package")


def test_fault_bench_patches_fit_the_package_as_it_is(tmp_path: Path) -> None:
    for number, row in enumerate(all_rows()):
        for variant in row.fault.without:
            make_variant(variant, PACKAGE_ROOT, tmp_path / f"{number}_{variant.name[:20]}")


def test_fault_bench_counts_as_open_who_passed_the_gate_and_was_not_recorded() -> None:
    journal = [{"gated": ["1", "2"]}, {"recorded": ["1"]}, {"gated": ["3"]}, {"killed": "dot: before"}]

    assert left_open(journal) == {"2", "3"}


def test_fault_bench_row_is_bad_when_a_variant_holds() -> None:
    row = Played(STOPPED_PAST_LEASE, [], {"no guard": []}, [])

    assert row.verdict_without == "HOLDS"
    assert not row.is_good


def test_fault_bench_row_is_bad_when_a_variant_is_merely_broken() -> None:
    sent_once = Observation(runs=1, kills=1, max_copies=1, lost=0, in_doubt=0, in_doubt_expected=0)
    sent_twice = replace(sent_once, max_copies=2)
    sent_nobody = replace(sent_once, max_copies=0, lost=4)
    (variant,) = STOPPED_PAST_LEASE.without

    all_in_doubt = replace(sent_nobody, in_doubt=4)

    def verdict(seen: Observation) -> tuple[str, bool]:
        row = Played(STOPPED_PAST_LEASE, [sent_once], {variant.name: [seen]}, [])
        return row.verdict_without, row.is_good

    assert verdict(sent_twice) == ("fails", True)
    assert verdict(all_in_doubt) == ("fails", True)
    assert verdict(sent_nobody) == ("BROKEN", False)


def test_fault_bench_results_line_reads_back() -> None:
    block = Block(first_seed=1, schedules=25, kills=7, kill_points={"dot: inside": 7})

    assert '"kill_points": {"dot: inside": 7}' in block.as_line()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "supervsor"], "no row has 'supervsor' in its name"),
        (["--schedules", "-3", "--rows", "none"], "schedules are 0 or more"),
        (["--schedules", "0", "--rows", "none"], "there is nothing to play"),
    ],
)
def test_fault_bench_that_would_play_nothing_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
