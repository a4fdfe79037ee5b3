"""Which system user a PostgreSQL server runs as, and where that user may keep files.

PostgreSQL refuses to run as root. A stack that root starts therefore runs it as an unprivileged user, who can
often neither reach root's folders nor read a virtual environment inside them.
"""

import hashlib
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError

UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class ServerUser:
    """The user of the server's processes. `switched` is true when it is not the user who runs this."""

    uid: int
    gid: int
    switched: bool

    @classmethod
    def choose(cls) -> "ServerUser":
        """Choose the current user; for root the first of UNPRIVILEGED that exists."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), switched=False)
        for name in UNPRIVILEGED:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid, switched=True)
        raise StackError(
            "PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as. "
            "Create one of them, or run this as an ordinary user."
        )

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command as this user in the root folder; return it with its output, whatever its exit code.

        The output goes through a file: a daemon that the command leaves behind would keep a pipe open.
        """
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                user=self.uid if self.switched else None,
                group=self.gid if self.switched else None,
                extra_groups=[] if self.switched else None,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, stdout=output.read())

    def can_reach(self, path: Path) -> bool:
        """Whether this user may enter (folder) or execute (file) an existing path."""
        if not self.switched:
            return os.access(path, os.X_OK)
        return self.run(["test", "-x", path]).returncode == 0

    def own(self, path: Path) -> None:
        """Give an existing file or folder to this user."""
        if self.switched:
            os.chown(path, self.uid, self.gid)

    def folder(self, wanted: Path) -> Path:
        """Create and return a folder that this user owns and reaches: `wanted`, or one in /var/tmp for it."""
        wanted.parent.mkdir(parents=True, exist_ok=True)
        place = wanted
        if not self.can_reach(wanted.parent):
            digest = hashlib.sha256(str(wanted.resolve()).encode()).hexdigest()[:16]
            place = Path("/var/tmp") / f"lifecycle-postgres-{digest}"  # noqa: S108  (its owner is checked)
        try:
            place.mkdir(mode=0o700)
            self.own(place)
        except FileExistsError:
            found = place.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid:
                raise StackError(
                    f"{place} exists and belongs to another user. Remove it, or set STATE_DIR."
                ) from None
        return place
