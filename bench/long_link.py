"""A long link: a proxy that passes every byte on a fixed time later, in order, both ways."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType

from local_stack.ports import LOOPBACK


class DelayingProxy:
    """Listens on a loopback `port` of its own; ``seconds`` is the delay of one way, half a round trip."""

    def __init__(self, target_port: int, seconds: float) -> None:
        self._target_port = target_port
        self._seconds = seconds
        self._listener = socket.create_server((LOOPBACK, 0), backlog=512)
        self._ways = selectors.DefaultSelector()
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        self._ends: list[socket.socket] = []
        self._ended = False
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="delaying proxy", daemon=True)

    def __enter__(self) -> DelayingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        self._ways.register(self._listener, selectors.EVENT_READ, None)
        while not self._ended:
            until_next = self._under_way[0][0] - time.monotonic() if self._under_way else 0.1
            for key, _ in self._ways.select(min(max(until_next, 0), 0.1)):
                if key.data is None:
                    self._connect()
                else:
                    self._take(key.data[0], key.data[1])
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, target, data = self._under_way.popleft()
                self._deliver(target, data)
        self._ways.close()
        self._listener.close()
        for end in self._ends:
            end.close()

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection((LOOPBACK, self._target_port))
        self._ends += [client, server]
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways.register(one, selectors.EVENT_READ, (one, other))

    def _take(self, source: socket.socket, target: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = source.recv(65536)
        self._under_way.append((time.monotonic() + self._seconds, target, data))
        if not data:
            self._ways.unregister(source)

    def _deliver(self, target: socket.socket, data: bytes) -> None:
        with suppress(OSError):
            if data:
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
