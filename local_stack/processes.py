"""The stack's long-lived processes: started in sessions of their own, remembered, ended without a trace.

A process started here outlives the program that started it. Its id and start time are kept in a file, so that
whoever comes next finds it, also after a ``kill -9``; an id that meanwhile belongs to another program is left
alone. What such a process starts in turn belongs to its session, or carries the stack's mark in its
environment, and is ended with it: also a task that was orphaned when Airflow was killed.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from local_stack.errors import StackError

MARK = "LIFECYCLE_LOCAL_STACK"
LOG_LINES_SHOWN = 20
CLOCK_SECONDS = 2  # a process's start time moves a little when the machine's clock is set


class Processes:
    """The processes of one stack, by name."""

    def __init__(self, state: Path, logs: Path) -> None:
        """Describe them; nothing is started.

        :param state: the stack's folder, which identifies it
        :param logs: where each process writes <name>.log
        """
        self._mark = str(state)
        self._records = state / "processes"
        self._logs = logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start a process. Its output goes to its log, which begins anew."""
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("wb") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, MARK: self._mark},
                start_new_session=True,
            )
        self._children[name] = child
        record = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
        (self._records / f"{name}.json").write_text(json.dumps(record))

    def log(self, name: str) -> Path:
        """Return the file that a process writes its output to."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """List the processes that were started and not yet stopped, whether or not they are alive."""
        return sorted(file.stem for file in self._records.glob("*.json"))

    def is_alive(self, name: str) -> bool:
        """Whether the very process that was started under this name is still there."""
        record = self._record(name)
        return record is not None and _is_same(record["pid"], record["started"])

    def pid(self, name: str) -> int:
        """Return the id of a process that was started under this name. StackError: there is none."""
        record = self._record(name)
        if record is None:
            raise StackError(f"No process {name} was started.")
        return int(record["pid"])

    def owner(self, pid: int) -> str | None:
        """Name the process that started process `pid`, directly or through others; None where none did."""
        with contextlib.suppress(psutil.NoSuchProcess):
            line = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
            for name in self.names():
                record = self._record(name)
                if record is not None and record["pid"] in line and self.is_alive(name):
                    return name
        return None

    def wait(self, name: str) -> int:
        """Wait for a process that this object started to end by itself, and return its exit code."""
        return self._children[name].wait()

    def check(self, name: str) -> None:
        """Raise StackError with the end of its log when a process has ended."""
        child = self._children.get(name)
        if child is not None:
            child.poll()  # so that it does not linger as a zombie
        if not self.is_alive(name) or (child is not None and child.returncode is not None):
            raise StackError(
                f"{name} has ended. Its log, {self.log(name)}, closes with:\n{self.last_words(name)}"
            )

    def last_words(self, name: str) -> str:
        """Return the last lines of a process's log."""
        if not self.log(name).exists():
            return "(no log)"
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def forget(self, name: str) -> None:
        """Drop the record of a process that has ended by itself."""
        (self._records / f"{name}.json").unlink(missing_ok=True)
        self._children.pop(name, None)

    def kill(self, name: str) -> None:
        """Kill a process and all that it started, at once and the hard way, as a machine that loses power.

        Its log stays, until something is started under the same name.
        """
        record = self._record(name)
        if record is not None and self.is_alive(name):
            leader = psutil.Process(int(record["pid"]))
            stopped: set[psutil.Process] = set()
            while fresh := {leader, *leader.children(recursive=True)} - stopped:
                for process in fresh:
                    _send(process, signal.SIGSTOP)  # so that none forks while the others are looked for
                stopped |= fresh
            for process in stopped:
                _send(process, signal.SIGKILL)
        child = self._children.get(name)
        if child is not None:
            child.wait()
        self.forget(name)

    def stop(self, seconds: float = 10, last: Collection[str] = ()) -> None:
        """End all processes and what they started: SIGTERM, and after `seconds` SIGKILL for what is left.

        :param last: names of processes that the others need to end well, and that have nothing to lose: they
            are killed when the others are gone.
        """
        spared = {record["pid"] for name in last if (record := self._record(name))}

        def others() -> list[psutil.Process]:
            return [process for process in self._belonging() if process.pid not in spared]

        for process in others():
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while others() and time.monotonic() < deadline:
            time.sleep(0.05)
        while left := self._belonging():  # once more each time: a process may have forked in between
            for process in left:
                _send(process, signal.SIGKILL)
            time.sleep(0.05)
        for child in self._children.values():
            child.wait()  # all are dead; this takes them off the system's list
        for name in self.names():
            self.forget(name)

    def _record(self, name: str) -> dict[str, float] | None:
        try:
            record: dict[str, float] = json.loads((self._records / f"{name}.json").read_text())
        except (OSError, ValueError):  # none, or cut short by a kill
            return None
        return record

    def _belonging(self) -> list[psutil.Process]:
        """Every live process of this stack, except the one that asks."""
        for child in self._children.values():
            child.poll()
        sessions = {int(r["pid"]): r["started"] for name in self.names() if (r := self._record(name))}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.pid != os.getpid() and self._belongs(process, sessions):
                    found.append(process)
        return found

    def _belongs(self, process: psutil.Process, sessions: Mapping[int, float]) -> bool:
        if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        # A task's environment is closed to all but root; a process that sets its title overwrites its own.
        with contextlib.suppress(psutil.AccessDenied):
            if process.environ().get(MARK) == self._mark:
                return True
        leader = os.getsid(process.pid)
        started = sessions.get(leader)
        # A session's number is not given to a new process while the session has members. So the leader is
        # either gone, or it is (dead or alive) the one that was started here; and members are younger.
        return (
            started is not None
            and process.create_time() > started - CLOCK_SECONDS
            and (not psutil.pid_exists(leader) or _started_at(leader, started))
        )


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the stack's folder for one program at a time. StackError: another one is at work there."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"Another make up, down or demo is at work in {state}. "
                "Wait for it, or set STATE_DIR and the ports."
            ) from None
        yield


def _is_same(pid: float, started: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return _started_at(pid, started) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    return False


def _started_at(pid: float, started: float) -> bool:
    return abs(psutil.Process(int(pid)).create_time() - started) < CLOCK_SECONDS


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
