"""A Redis of its own for a run of Celery: one process on a loopback port, with nothing kept on disk."""

import shutil
import sys
import time

import redis

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK
from local_stack.processes import Processes

REDIS = "redis"
START_SECONDS = 30


def redis_program() -> str:
    """Find redis-server. StackError: it is not installed; the message is the command that installs it."""
    found = shutil.which("redis-server")
    if found is None:
        install = "brew install redis" if sys.platform == "darwin" else "sudo apt-get install redis-server"
        raise StackError(f"This needs a real Redis, and redis-server is not installed. Run: {install}")
    return found


def start_redis(processes: Processes, port: int, password: str, environment: dict[str, str]) -> None:
    """Start Redis among the stack's processes; it answers on return. StackError: it does not."""
    folder = processes.log(REDIS).parent / REDIS
    folder.mkdir(parents=True, exist_ok=True)
    command = (
        redis_program(), "--port", str(port), "--bind", LOOPBACK, "--requirepass", password,
        "--save", "", "--appendonly", "no", "--dir", str(folder),
    )  # fmt: skip
    processes.start(REDIS, command, environment)
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis(LOOPBACK, port, password=password) as client:
        while True:
            processes.check(REDIS)
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"Redis does not answer on port {port}. Its log: {processes.log(REDIS)}"
                    ) from None
                time.sleep(0.05)
            else:
                return
