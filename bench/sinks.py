"""A null sink for mail: Postfix's smtp-sink, or one of our own where the machine has none."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.ports import LOOPBACK, free_port

START_SECONDS = 10.0
_KEPT = "mails"
_PLACES = "/usr/sbin:/usr/libexec/postfix:/usr/lib/postfix:/usr/local/sbin"


class Sink:
    """A running sink: its `port`, its `name`, whether it speaks TLS, and how many mails it has taken."""

    def __init__(self, name: str, port: int, counters: Path, *, tls: bool = False) -> None:
        self.name = name
        self.port = port
        self.tls = tls
        self._counters = counters

    def mails(self) -> int:
        """Mails accepted so far, as the sink itself counts them."""
        text = self._counters.read_bytes()[-4096:]
        counts = re.findall(rb"mesg=\s*(\d+)", text)
        return int(counts[-1]) if counts else 0


@contextmanager
def running_sink(
    port: int | None = None, *, certificate: Path | None = None, keep: Path | None = None
) -> Iterator[Sink]:
    """Run smtp-sink, or the built-in sink, on a loopback port until the block ends.

    With ``certificate``, a PEM file with a key, it is the built-in sink, for smtp-sink speaks no TLS, and it
    takes mail after STARTTLS only. ``keep``: a new folder in which the mails are kept, see `recipients`.
    """
    port = port or free_port()
    program = None if certificate else postfix_program("smtp-sink")
    if program:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []  # smtp-sink does not run as root
        kept = ["-D", str(keep / _KEPT)] if keep else []
        command = [program, "-c", "-m", "1000", *kept, *user, f"{LOOPBACK}:{port}", "1000"]
    else:
        command = [sys.executable, "-m", "bench.built_in_sink", f"--port={port}"]
        command += [f"--certificate={certificate}"] if certificate else []
        command += [f"--keep={keep / _KEPT}"] if keep else []
    name = "smtp-sink" if program else "the built-in sink"
    with tempfile.TemporaryDirectory() as folder:
        counters = Path(folder) / "counters"
        if keep:
            keep.mkdir()
            keep.chmod(0o777)  # smtp-sink has given up root's rights when it creates the file
        with counters.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_listens(port, process)
            yield Sink(name, port, counters, tls=certificate is not None)
        finally:
            process.kill()
            process.wait()


def recipients(kept: Path) -> Counter[str]:
    """How many mails each recipient got, read from the folder in which a sink kept them."""
    found = re.findall(rb"^X-Rcpt-Args: <([^>]*)>", (kept / _KEPT).read_bytes(), re.MULTILINE)
    return Counter(address.decode() for address in found)


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
