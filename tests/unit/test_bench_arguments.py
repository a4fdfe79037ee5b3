"""A wrong number on a benchmark's command line ends in one line that names the least allowed, and starts nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bench import __main__ as bench
from bench import connections, million, planning, sender, storage, throttle
from bench.sending_place import dealt_out

WRONG = [
    *((bench, "--size", wrong, 8) for wrong in ("0", "-3", "1", "7", "5000001", "8.5", "many")),
    *((bench, "--rounds", wrong, 1) for wrong in ("0", "-1")),
    *((bench, "--connections", wrong, 1) for wrong in ("0", "257")),
    *((million, "--size", wrong, 1) for wrong in ("0", "-3", "10000001")),
    (million, "--slots", "0", 1),
    *((million, "--connections", wrong, 1) for wrong in ("0", "257")),
    *((sender, "--size", wrong, 4) for wrong in ("0", "-3", "3", "10000001")),
    (sender, "--size", "7", 8),
    (sender, "--rounds", "0", 1),
    (sender, "--processes", "0", 1),
    *((sender, "--connections", wrong, 1) for wrong in ("0", "257")),
    *((sender, "--port", wrong, 1) for wrong in ("0", "65536")),
    *((planning, "--size", wrong, 1) for wrong in ("0", "-3")),
    (planning, "--rounds", "0", 1),
    (planning, "--campaigns", "0", 1),
    *((planning, "--history", wrong, "1,468") for wrong in ("0", "1467")),
    (planning, "--history", "1468", "8,001,460"),
    *((planning, "--port", wrong, 1) for wrong in ("0", "65536")),
    *((throttle, "--seconds", wrong, 1) for wrong in ("0", "-3", "0.9", "inf", "nan")),
    *((throttle, "--rate", wrong, 0.1) for wrong in ("0", "-3", "10001", "nan", "fast")),
    (throttle, "--rate=5 --seconds", "1", 2),
    *((throttle, "--workers", wrong, 1) for wrong in ("0", "17")),
    *((throttle, "--connections", wrong, 1) for wrong in ("0", "257")),
    *((connections, "--milliseconds", wrong, 0) for wrong in ("-1", "nan")),
    (connections, "--mails", "0", 1),
    *((connections, "--most", wrong, 1) for wrong in ("0", "257")),
    *((storage, "--rows", wrong, 730) for wrong in ("0", "729")),
    (storage, "--group", "0", 1),
    *((storage, "--repetitions", wrong, 1) for wrong in ("0", "31")),
]


def refusal(
    main: Callable[[Sequence[str]], Any], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()[-1]


@pytest.mark.parametrize(("command", "option", "wrong", "least"), WRONG)
def test_wrong_number_is_refused_in_one_line_that_names_the_least(
    command: Any, option: str, wrong: str, least: float | str, capsys: pytest.CaptureFixture[str]
) -> None:
    *others, option = option.split()

    line = refusal(command.main, [*others, option, wrong], capsys)

    assert f"argument {option}: it is " in line
    assert f"at least {least}" in line


@pytest.mark.parametrize(("processes", "size"), [(1, 4), (2, 8), (5, 20)], ids=["one", "two", "five"])
def test_every_process_of_the_sender_has_a_mail_of_the_least_size(processes: int, size: int) -> None:
    assert sender.least_size(processes) == size


@pytest.mark.parametrize(
    ("size", "planned"), [(8, 1_000), (300, 15_000), (20_000, 1_000_000), (1_000_000, 1_000_000)]
)
def test_planning_is_measured_with_a_million_at_most(size: int, planned: int) -> None:
    assert bench.planned_users(size) == planned


def test_help_says_what_the_size_does_to_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--help"])

    lines = capsys.readouterr().out.splitlines()
    assert f"  {bench.ONE_BY_ONE}: SIZE / {sender.SLOW[bench.ONE_BY_ONE]}" in lines
    assert f"  {bench.BY_STANDARD_LIBRARY}: SIZE / {sender.SLOW[bench.BY_STANDARD_LIBRARY]}" in lines
    assert f"  the peers, with --peers: SIZE / {bench.PEERS_PART}" in lines
    assert f"  EmailOperator: {bench.USERS_OF_OPERATORS} users, whatever SIZE is" in lines
    assert "  the send_batch stage in Airflow: 2 x SIZE, in at most 2 rounds" in lines
    assert "users planned, once: 50 x SIZE, but at least 1,000 and at most 1,000,000" in lines


@pytest.mark.parametrize(("batches", "processes"), [(6, 4), (5, 5), (13, 3), (4, 1)])
def test_every_process_gets_batches_where_there_are_enough(batches: int, processes: int) -> None:
    parts = dealt_out(range(batches), processes)

    assert [batch for part in parts for batch in part] == list(range(batches))
    assert (len(parts), min(map(len, parts))) == (processes, batches // processes)
