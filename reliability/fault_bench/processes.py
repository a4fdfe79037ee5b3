"""The bench's side of its processes: a process server per tree and its children; the network process.

A child is waited for by its pidfd, so that a time limit needs no thread, and signalled by its own id only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE_ROOT = ROOT / "plugins"

SECONDS = 90.0
"""Longest that a process may take for one job on a loaded machine."""


class BenchError(Exception):
    """The bench itself failed: not a verdict on the package."""


class _LineServer:
    """A program that answers one JSON line with another."""

    def __init__(self, arguments: list[str], path: list[Path], log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        self._log = log
        with log.open("ab") as words:
            self._program = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=words, env=environment, cwd=ROOT, text=True, start_new_session=True,
            )  # fmt: skip

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command and read its answer."""
        if self._program.stdin is None or self._program.stdout is None:
            raise BenchError("a program of the bench has no pipes")
        try:
            self._program.stdin.write(json.dumps(command) + "\n")
            self._program.stdin.flush()
            line = self._program.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"a program of the bench ended: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:]

    def close(self) -> None:
        """Let it end by the end of its input."""
        if self._program.stdin is not None:
            self._program.stdin.close()
        self._program.wait(30)
        if self._program.stdout is not None:
            self._program.stdout.close()


class ProcessServer(_LineServer):
    """Starts processes that work with one tree of the package."""

    def __init__(self, tree: Path, log: Path) -> None:
        super().__init__(["reliability.fault_bench.process_server", str(log)], [tree, ROOT], log)

    def start(self, job: dict[str, Any]) -> Process:
        """Begin a job in a process of its own."""
        return Process(self, self.ask({"start": job})["pid"], job)


class Process:
    """One child at its job."""

    def __init__(self, server: ProcessServer, pid: int, job: dict[str, Any]) -> None:
        self._server = server
        self.pid = pid
        self.job = job
        self.status: int | None = None
        self._handle = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._handle, number)

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Wait so long at most for its end."""
        if self.status is not None:
            return True
        if not select.select([self._handle], [], [], seconds)[0]:
            return False
        os.close(self._handle)
        self.status = self._server.ask({"reap": self.pid})["status"]
        return True

    def wait(self, seconds: float = SECONDS) -> Process:
        """Wait for its end; one that does not come is killed and a fault of the bench."""
        if not self.has_ended(seconds):
            self.signal(signal.SIGKILL)
            self.has_ended(seconds)
            raise BenchError(f"a process did not end within {seconds:.0f} s: {self.job['steps']}")
        return self

    def wait_until_stopped(self, seconds: float = SECONDS) -> bool:
        """Wait until it has stopped itself; False when it ended instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.has_ended():
                return False
            if (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()[0] == "T":
                return True
            time.sleep(0.005)
        raise BenchError(f"a process did not stop itself at {self.job.get('stop')}")

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL

    @property
    def outcome(self) -> dict[str, Any]:
        """What it wrote: ``done`` by step and ``error``; empty when it was killed."""
        result = Path(self.job["result"])
        if not result.exists():
            return {"done": {}, "error": None}
        outcome: dict[str, Any] = json.loads(result.read_text())
        return outcome


class NetworkProcess(_LineServer):
    """Sinks and proxies, in their own process."""

    def __init__(self, log: Path) -> None:
        super().__init__(["reliability.fault_bench.network"], [PACKAGE_ROOT, ROOT], log)

    def do(self, name: str, **arguments: Any) -> Any:
        """Carry out one of `network`'s commands."""
        return self.ask({"do": name, **arguments})["answer"]
