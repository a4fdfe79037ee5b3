"""A private Postfix on loopback, in a temporary folder: its own configuration, queue, log and mailbox.

Nothing of the system's own Postfix is read or changed. Knows Postfix; must not know what is sent to it.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK, free_port, is_free

INSTALL = "apt-get install postfix"
SECONDS = 60
_QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
_SERVICES = """\
{host}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def why_postfix_cannot_run() -> str | None:
    """What is missing for a Postfix of one's own, and how to get it; None where nothing is."""
    if _program("postfix") is None:
        return f"Postfix is not installed: {INSTALL}"
    if os.geteuid() != 0:
        return "Postfix starts as root only; run this as root"
    try:
        pwd.getpwnam("postfix")
        grp.getgrnam("postdrop")
    except KeyError:
        return f"Postfix's user or group is missing: {INSTALL}"
    return None


class Postfix:
    """A running Postfix that takes mail for example.com and delivers it into one folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.host = LOOPBACK
        self.port = port
        self.log = folder / "log" / "mail.log"
        self._folder = folder

    def wait_for_partings(self, connections: int) -> None:
        """Wait until so many connections have ended on Postfix's side; StackError when they do not."""
        self._wait(
            lambda: self.words().count(" disconnect from ") >= connections,
            f"the end of {connections} dialogues",
        )

    def delivered(self) -> list[str]:
        """Recipients of everything that was accepted, once the queue has run empty: one entry per copy."""
        self._wait(lambda: not any(self._queued()), "an empty queue")
        return sorted(
            str(message_from_bytes(file.read_bytes())["X-Original-To"])
            for file in (self._folder / "mail" / "box" / "new").glob("*")
        )

    def words(self) -> str:
        """What Postfix has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _queued(self) -> Iterator[Path]:
        for queue in _QUEUES:
            for place in (self._folder / "queue" / queue).rglob("*"):
                if place.is_file():
                    yield place

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise StackError(f"Postfix did not come to {what}:\n{self.words()[-2000:]}")
            time.sleep(0.05)


@contextmanager
def running_postfix() -> Iterator[Postfix]:
    """Run a Postfix of one's own; raises StackError where it cannot run or does not start."""
    missing = why_postfix_cannot_run()
    if missing is not None:
        raise StackError(missing)
    with tempfile.TemporaryDirectory(prefix="lifecycle-postfix-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port()
        _write_configuration(folder, port)
        command = [str(_program("postfix")), "-c", str(folder / "config")]
        with (
            (folder / "start.log").open("wb") as said,
            subprocess.Popen(
                [*command, "start-fg"], stdout=said, stderr=said, start_new_session=True
            ) as master,
        ):
            try:
                postfix = Postfix(folder, port)
                _wait_until_it_listens(master, port, folder / "start.log")
                yield postfix
            finally:
                subprocess.run([*command, "abort"], check=False, capture_output=True)
                master.wait(SECONDS)


def _write_configuration(folder: Path, port: int) -> None:
    user = pwd.getpwnam("postfix")
    for part in ("config", "queue", "data", "log", "mail"):
        (folder / part).mkdir()
    for part in ("data", "log", "mail"):
        os.chown(folder / part, user.pw_uid, user.pw_gid)
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": folder / "queue",
        "data_directory": folder / "data",
        "maillog_file": folder / "log" / "mail.log",
        "maillog_file_prefixes": folder / "log",
        "inet_interfaces": LOOPBACK,
        "inet_protocols": "ipv4",
        "mynetworks": f"{LOOPBACK}/32",
        "myhostname": "mta.example.com",
        "mydestination": "",
        "alias_maps": "",
        "virtual_mailbox_domains": "example.com",
        "virtual_mailbox_base": folder / "mail",
        "virtual_mailbox_maps": "static:box/",
        "virtual_uid_maps": f"static:{user.pw_uid}",
        "virtual_gid_maps": f"static:{user.pw_gid}",
    }
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / "config" / "main.cf").write_text(text)
    (folder / "config" / "master.cf").write_text(_SERVICES.format(host=LOOPBACK, port=port))


def _wait_until_it_listens(master: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while is_free(port):
        if master.poll() is not None or time.monotonic() > deadline:
            raise StackError(f"Postfix did not start:\n{said.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _program(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin")
