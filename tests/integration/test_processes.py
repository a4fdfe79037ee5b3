"""The stack's processes are ended without a trace, whatever became of the program that started them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local_stack.errors import StackError
from local_stack.processes import MARK, Processes, only_one


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path, tmp_path / "logs")
    yield processes
    processes.stop(seconds=0)


def python(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


SLEEP = python("import time; print('ready', flush=True); time.sleep(600)")


def start(processes: Processes, name: str, command: list[str]) -> None:
    """Start a process and wait until it says that it is ready."""
    processes.start(name, command, os.environ)
    wait_for(processes, name, "ready")


def wait_for(processes: Processes, name: str, word: str) -> list[str]:
    while word not in processes.log(name).read_text().split():
        assert processes.is_alive(name), processes.last_words(name)
    return processes.log(name).read_text().split()


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_process_outlives_the_program_that_started_it_and_is_found_by_the_next(
    tmp_path: Path, processes: Processes
) -> None:
    program = f"""
        import os, signal, sys
        from pathlib import Path
        from local_stack.processes import Processes
        processes = Processes(Path({str(tmp_path)!r}), Path({str(tmp_path / "logs")!r}))
        processes.start("sleeper", {SLEEP!r}, os.environ)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run(python(program), check=False).returncode == -signal.SIGKILL
    assert processes.names() == ["sleeper"]
    assert processes.is_alive("sleeper")
    processes.stop()
    assert not processes.is_alive("sleeper")
    assert processes.names() == []


def test_stop_ends_what_a_process_started_even_when_it_is_dead_and_its_child_ignores_sigterm(
    processes: Processes,
) -> None:
    start(
        processes,
        "parent",
        python("""
            import os, signal, time
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print(os.getpid(), "ready", flush=True)
            time.sleep(600)
        """),
    )
    child = int(wait_for(processes, "parent", "ready")[0])
    os.kill(psutil.Process(child).ppid(), signal.SIGKILL)
    processes.stop(seconds=0.2)
    assert is_gone(child)


def test_stop_ends_a_child_that_hides_its_environment_when_its_parent_is_dead_but_not_reaped(
    tmp_path: Path, processes: Processes
) -> None:
    start(
        processes,
        "parent",
        python("""
            import os, time
            import setproctitle
            if os.fork() == 0:
                setproctitle.setproctitle("a worker with a title of its own" * 50)
                print(os.getpid(), "ready", flush=True)
            time.sleep(600)
        """),
    )
    child = int(wait_for(processes, "parent", "ready")[0])
    parent = psutil.Process(child).parent()
    assert parent is not None
    parent.kill()
    while parent.status() != psutil.STATUS_ZOMBIE:
        pass
    Processes(tmp_path, tmp_path / "logs").stop()  # another program: the parent is not its child to reap
    assert is_gone(child)


@pytest.mark.parametrize(
    "hide",
    [
        "import setproctitle; setproctitle.setproctitle('another title' * 50)",
        "import ctypes; ctypes.CDLL(None).prctl(4, 0)",  # not dumpable: its environment is closed
    ],
)
def test_stop_ends_processes_whose_environment_cannot_be_read(processes: Processes, hide: str) -> None:
    start(processes, "hidden", python(f"import time\n{hide}\nprint('ready', flush=True)\ntime.sleep(600)"))
    processes.stop()
    assert not processes.is_alive("hidden")


def test_stop_ends_a_process_that_was_started_but_not_yet_remembered(
    tmp_path: Path, processes: Processes
) -> None:
    with subprocess.Popen(
        SLEEP, env={**os.environ, MARK: str(tmp_path)}, stdout=subprocess.PIPE
    ) as forgotten:
        assert forgotten.stdout is not None
        forgotten.stdout.readline()
        processes.stop()
        assert forgotten.wait() == -signal.SIGTERM


def test_stop_leaves_a_program_alone_that_has_a_remembered_id_by_now(
    tmp_path: Path, processes: Processes
) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        started = psutil.Process(other.pid).create_time() - 60
        (tmp_path / "processes").mkdir()
        record = json.dumps({"pid": other.pid, "started": started})
        (tmp_path / "processes" / "old.json").write_text(record)
        assert not processes.is_alive("old")
        processes.stop()
        assert other.poll() is None
        other.kill()


def test_stop_keeps_the_last_process_until_the_others_are_gone(tmp_path: Path, processes: Processes) -> None:
    start(processes, "server", SLEEP)
    server = json.loads((tmp_path / "processes" / "server.json").read_text())["pid"]
    start(
        processes,
        "client",
        python(f"""
            import signal, sys, time
            import psutil
            def ask(*_):
                print("server is alive:", psutil.pid_exists({server}), flush=True)
                sys.exit()
            signal.signal(signal.SIGTERM, ask)
            print("ready", flush=True)
            time.sleep(600)
        """),
    )
    processes.stop(last=["server"])
    assert processes.last_words("client").endswith("server is alive: True")
    assert is_gone(server)


def test_kill_ends_one_process_with_all_that_it_started_and_leaves_the_others_alone(
    processes: Processes,
) -> None:
    start(processes, "other", SLEEP)
    start(
        processes,
        "parent",
        python("""
            import os, signal, time
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if os.fork() == 0:
                    print(os.getpid(), "ready", flush=True)
            time.sleep(600)
        """),
    )
    grandchild = int(wait_for(processes, "parent", "ready")[0])
    assert processes.owner(grandchild) == "parent"
    assert processes.owner(os.getpid()) is None
    processes.kill("parent")
    deadline = time.monotonic() + 30
    while not is_gone(grandchild):
        assert time.monotonic() < deadline, "what the killed process had started is alive"
    assert processes.names() == ["other"]
    assert processes.is_alive("other")
    processes.kill("parent")  # nothing to do


def test_stop_leaves_another_stack_alone(tmp_path: Path, processes: Processes) -> None:
    other = Processes(tmp_path / "other", tmp_path / "other" / "logs")
    start(other, "sleeper", SLEEP)
    processes.stop()
    assert other.is_alive("sleeper")
    other.stop()
    assert not other.is_alive("sleeper")


def test_check_says_how_the_log_of_an_ended_process_closes(processes: Processes) -> None:
    processes.start("broken", python("print('no such table'); raise SystemExit(3)"), os.environ)
    assert processes.wait("broken") == 3
    with pytest.raises(StackError, match=r"broken has ended.*broken\.log(?s:.*)no such table"):
        processes.check("broken")


def test_a_record_cut_short_by_a_kill_is_no_record(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "cut.json").write_text('{"pid": 1')
    assert not processes.is_alive("cut")
    processes.stop()
    assert processes.names() == []


def test_only_one_program_works_on_a_stack_at_a_time(tmp_path: Path) -> None:
    busy = pytest.raises(StackError, match="Another make up, down or demo is at work")
    with only_one(tmp_path), busy, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
