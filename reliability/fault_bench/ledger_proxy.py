"""A proxy in front of Postgres that cuts a connection at a chosen answer, or after so many bytes.

It reads just enough of the protocol to know the answer to COMMIT: a CommandComplete message (``C``) with the
tag ``COMMIT``. A connection is cut after the server gave that answer and before the client has it.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


class LedgerProxy:
    """Forwards to ``127.0.0.1:<target>``.

    ``commits``: which answers to COMMIT (counted over all connections, from 1) are not passed on.
    ``after_bytes``: each of the first ``times`` connections is cut when the server has sent so many bytes.
    """

    def __init__(
        self, target: int, *, commits: list[int] | None = None, after_bytes: int | None = None, times: int = 1
    ) -> None:
        self._target = target
        self._commits = set(commits or ())
        self._after_bytes = after_bytes
        self._times = times
        self._seen = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and end every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_server: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if from_server and self._cuts_here(data, passed):
                    break
                target.sendall(data)
                passed += len(data)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _cuts_here(self, data: bytes, passed: int) -> bool:
        with self._lock:
            for _ in range(data.count(_COMMITTED)):
                self._seen += 1
                if self._seen in self._commits:
                    self.cuts += 1
                    return True
            limit = self._after_bytes if self.cuts < self._times else None
            if limit is None or passed + len(data) <= limit:
                return False
            self.cuts += 1
            return True
