"""Loopback ports: find a free one, or say plainly that a chosen one is taken."""

import random
import socket

from local_stack.errors import StackError

LOOPBACK = "127.0.0.1"
CANDIDATES = range(20000, 32000)


def free_port() -> int:
    """Return a loopback port that nobody listens on now; another program may still take it first.

    Not the system's own choice: that lies in the range of outgoing connections, where a client that tries
    again and again until a server is up can end up connected to itself.
    """
    for port in random.SystemRandom().sample(CANDIDATES, k=1000):
        if is_free(port):
            return port
    raise StackError("No free loopback port found.")


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def require_free(port: int, variable: str) -> None:
    """Raise StackError, naming the variable that moves it, when the port is taken."""
    if not is_free(port):
        raise StackError(f"Port {port} is taken by another program. Choose another: {variable}=<port>.")
