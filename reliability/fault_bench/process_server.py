"""Starts children that have the package loaded already: `python -m ... LOG`, with the tree first on the path.

Forking a process without threads that did its imports costs milliseconds, starting Python a second. Commands
come as JSON lines on standard input: ``{"start": job}`` answers ``{"pid": n}``, ``{"reap": pid}`` waits and
answers ``{"status": n}``. At the end of input every child that still lives is killed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from typing import Any

from reliability.fault_bench import jobs


def main(log: str) -> None:
    """Serve until the bench is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench decides when its processes end
    gc.collect()
    gc.freeze()  # what is loaded stays shared with the children
    children: set[int] = set()
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            pid = _start(command["start"], log)
            children.add(pid)
            answer = {"pid": pid}
        else:
            pid = command["reap"]
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
            children.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _start(job: dict[str, Any], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _own_streams(log)
        os.environ.update(job.get("environment", {}))
        jobs.run(job)
        status = 0
    except BaseException:  # noqa: BLE001  (a forked child must never go on in its parent's loop)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _own_streams(log: str) -> None:
    """Give the child streams of its own: the server's are its line to the bench."""
    nothing = os.open(os.devnull, os.O_RDWR)
    words = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    for target, source in ((0, nothing), (1, nothing), (2, words)):
        os.dup2(source, target)


if __name__ == "__main__":
    main(sys.argv[1])
