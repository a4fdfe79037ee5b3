"""A private PgBouncer in transaction mode on loopback, in a temporary folder.

Knows the program and its configuration file. Must not know what is asked through it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK, free_port
from local_stack.postgres import SUPERUSER, PostgresServer
from local_stack.server_user import ServerUser

START_SECONDS = 30
INSTALL = "apt-get install pgbouncer"


def pgbouncer_program() -> str | None:
    """The path of the program, None where it is not installed."""
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class PgBouncer:
    """A running pooler; its clients need no password, being on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, database: str) -> str:
        """The URL of a database through the pooler."""
        return f"postgresql://{SUPERUSER}@{LOOPBACK}:{self._port}/{database}"


@contextmanager
def running_pgbouncer(
    server: PostgresServer, databases: Sequence[str], *, pool_size: int
) -> Iterator[PgBouncer]:
    """Run a PgBouncer before ``server``, each server connection given back at the end of a transaction.

    ``pool_size``: server connections per database; fewer than clients makes the clients share them. Raises
    StackError when the program is not installed or does not start.
    """
    program = pgbouncer_program()
    if program is None:
        raise StackError(f"PgBouncer is not installed. Run: {INSTALL}")
    user = ServerUser.choose()  # like PostgreSQL, it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="lifecycle-pgbouncer-") as name:
        folder = Path(name)
        user.own(folder)
        port = free_port()
        configuration = folder / "pgbouncer.ini"
        configuration.touch(mode=0o600)
        configuration.write_text(_configuration(server, databases, folder, port, pool_size))
        user.own(configuration)
        with subprocess.Popen(
            [program, "-q", str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user.uid if user.switched else None,
            group=user.gid if user.switched else None,
            extra_groups=[] if user.switched else None,
        ) as process:
            try:
                pooler = PgBouncer(port)
                _wait_until_ready(process, pooler, databases[0], folder / "pgbouncer.log")
                yield pooler
            finally:
                process.kill()


def _configuration(
    server: PostgresServer, databases: Sequence[str], folder: Path, port: int, pool_size: int
) -> str:
    (folder / "users.txt").write_text(f'"{SUPERUSER}" ""\n')
    (folder / "users.txt").chmod(0o644)
    lines = [
        "[databases]",
        *(
            f"{database} = host={LOOPBACK} port={server.port} dbname={database} user={SUPERUSER}"
            f" password={server.password}"
            for database in databases
        ),
        "[pgbouncer]",
        f"listen_addr = {LOOPBACK}",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = trust",
        f"auth_file = {folder / 'users.txt'}",
        f"logfile = {folder / 'pgbouncer.log'}",
        "pool_mode = transaction",
        f"default_pool_size = {pool_size}",
        "max_client_conn = 600",
    ]
    return "\n".join([*lines, ""])


def _wait_until_ready(
    process: subprocess.Popen[bytes], pooler: PgBouncer, database: str, log_file: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(pooler.url(database)).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log_file.read_text(errors="replace")[-2000:] if log_file.exists() else ""
                raise StackError(f"PgBouncer did not start: {error}\n{said}") from None
            time.sleep(0.05)
        else:
            return
