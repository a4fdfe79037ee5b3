"""A null sink for mail: Postfix's smtp-sink, or one of our own where the machine has none."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.ports import LOOPBACK, free_port

START_SECONDS = 10.0
_PLACES = "/usr/sbin:/usr/libexec/postfix:/usr/lib/postfix:/usr/local/sbin"


class Sink:
    """A running sink: its `port`, its `name`, and how many mails it has taken."""

    def __init__(self, name: str, port: int, counters: Path) -> None:
        self.name = name
        self.port = port
        self._counters = counters

    def mails(self) -> int:
        """Mails accepted so far, as the sink itself counts them."""
        text = self._counters.read_bytes()[-4096:]
        counts = re.findall(rb"mesg=\s*(\d+)", text)
        return int(counts[-1]) if counts else 0


@contextmanager
def running_sink(port: int | None = None) -> Iterator[Sink]:
    """Run smtp-sink, or the built-in sink, on a loopback port until the block ends."""
    port = port or free_port()
    program = postfix_program("smtp-sink")
    built_in = [sys.executable, "-m", "bench.sinks", str(port)]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # smtp-sink does not run as root
    command = [program, "-c", *user, f"{LOOPBACK}:{port}", "1000"] if program else built_in
    with tempfile.TemporaryDirectory() as folder:
        counters = Path(folder) / "counters"
        with counters.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_listens(port, process)
            yield Sink("smtp-sink" if program else "built-in sink", port, counters)
        finally:
            process.kill()
            process.wait()


def postfix_program(name: str) -> str | None:
    """Where Postfix's program of that name is; None where the machine has none."""
    return shutil.which(name) or shutil.which(name, path=_PLACES)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the null sink did not start") from None
            time.sleep(0.02)
        else:
            return


class _Client:
    """One connection of the built-in sink."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.in_data = False
        connection.sendall(b"220 sink.example.com ESMTP\r\n")

    def take(self, data: bytes) -> int:
        """Answer what the client said; returns how many mails it brought to their dot."""
        self.received += data
        answers, mails = [], 0
        while True:
            if self.in_data:
                end = self.received.find(b"\r\n.\r\n")
                if end < 0:
                    self.received = self.received[-4:]  # the rest of a body is of no use
                    break
                self.received = self.received[end + 5 :]
                self.in_data = False
                mails += 1
                answers.append(b"250 2.0.0 Ok: queued as SINK\r\n")
                continue
            line, found, rest = self.received.partition(b"\r\n")
            if not found:
                break
            self.received = rest
            verb = line[:4].upper()
            self.in_data = verb == b"DATA"
            answers.append(_ANSWERS.get(verb, b"250 2.0.0 Ok\r\n"))
        if answers:
            self.connection.sendall(b"".join(answers))
        return mails


_ANSWERS = {
    b"EHLO": b"250-sink.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"DATA": b"354 End data with <CR><LF>.<CR><LF>\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


def serve(port: int) -> None:
    """Take mail for ever, one thread, printing the count as smtp-sink does."""
    mails = 0
    waiting = selectors.DefaultSelector()
    with socket.create_server((LOOPBACK, port), backlog=1000) as listener:
        waiting.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in waiting.select():
                if key.data is None:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    waiting.register(connection, selectors.EVENT_READ, _Client(connection))
                    continue
                client: _Client = key.data
                try:
                    data = client.connection.recv(65536)
                    taken = client.take(data) if data else 0
                except OSError:
                    data, taken = b"", 0
                if not data:
                    waiting.unregister(client.connection)
                    client.connection.close()
                if taken:
                    mails += taken
                    sys.stdout.write(f"mesg={mails}\r")
                    sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
