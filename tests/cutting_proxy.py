"""A TCP proxy on loopback that can cut a connection just before the server's next answer reaches the client."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
ROLLED_BACK = b"C\x00\x00\x00\x0dROLLBACK\x00"


class CuttingProxy:
    """Forwards connections to ``127.0.0.1:<target>`` until told to cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._cut = threading.Event()
        self._deny = threading.Event()
        self._lose = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def cut_before_next_answer(self) -> None:
        """The next bytes from the server are not passed on; both sides lose the connection. Once."""
        self._cut.set()

    def cut_now(self) -> None:
        """Every client loses its connection at once; the server notices when it answers."""
        for client in self._clients:
            client.shutdown(socket.SHUT_RDWR)

    def deny_next_commit(self) -> None:
        """The next COMMIT that the server carries out is answered to the client with ROLLBACK."""
        self._deny.set()

    def lose_next_commit(self) -> None:
        """The next COMMIT that the server carries out is not answered: the client loses its connection."""
        self._lose.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            self._clients.append(client)
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if from_server and self._cut.is_set():
                    self._cut.clear()
                    break
                if from_server and self._lose.is_set() and COMMITTED in data:
                    self._lose.clear()
                    break
                if from_server and self._deny.is_set() and COMMITTED in data:
                    self._deny.clear()
                    data = data.replace(COMMITTED, ROLLED_BACK)
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
