"""How a dialogue waits for its server: a thread blocks, or the lanes of a loop take turns.

The two ways differ in nothing that a dialogue could see; one set of tests holds both. Must not know SMTP.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

RECEIVED_AT_ONCE = 8192

Result = TypeVar("Result")


class Waiting(Protocol):
    """Reading and writing a connected socket until a deadline, by `time.monotonic`."""

    def adopt(self, connection: socket.socket) -> None:
        """Take over a socket that was opened by blocking calls."""

    def forget(self, connection: socket.socket) -> None:
        """Let go of a socket that is about to be closed."""

    def call(self, work: Callable[[], Result]) -> Result:
        """Do work that blocks, such as opening a connection, and return or raise what came of it."""

    def receive(self, connection: socket.socket, deadline: float) -> bytes:
        """Return what came, empty at the connection's end. Raises OSError, TimeoutError at the deadline."""

    def receive_now(self, connection: socket.socket) -> bytes | None:
        """Return what has come by now, None where nothing has. Raises OSError."""

    def send(self, connection: socket.socket, data: bytes, deadline: float) -> None:
        """Write all of it. Raises OSError, TimeoutError at the deadline; some may have been written then."""


class ThreadWaiting:
    """Waits by blocking the thread."""

    def adopt(self, connection: socket.socket) -> None:
        """Nothing to do: the time limit is set by each call."""

    def forget(self, connection: socket.socket) -> None:
        """Nothing is kept."""

    def call(self, work: Callable[[], Result]) -> Result:
        """Do the work here."""
        return work()

    def receive(self, connection: socket.socket, deadline: float) -> bytes:
        """See `Waiting`."""
        connection.settimeout(seconds_until(deadline))
        return connection.recv(RECEIVED_AT_ONCE)

    def receive_now(self, connection: socket.socket) -> bytes | None:
        """See `Waiting`."""
        connection.settimeout(0)
        try:
            return connection.recv(RECEIVED_AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def send(self, connection: socket.socket, data: bytes, deadline: float) -> None:
        """See `Waiting`."""
        connection.settimeout(seconds_until(deadline))
        connection.sendall(data)


THREAD_WAITING = ThreadWaiting()


def seconds_until(deadline: float) -> float:
    """Return the time left. Raises TimeoutError where none is."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("nothing came, or was taken, within the time allowed")
    return remaining
