"""The embedded PostgreSQL: starts, stops, survives being killed, says what is wrong."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local_stack.errors import StackError
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer, temporary_server


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with temporary_server() as server:
        yield server


def test_server_is_postgresql_18_with_fsync_on(postgres_server: PostgresServer) -> None:
    with postgres_server.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version_num')::int / 10000, current_setting('fsync'),"
            " current_setting('synchronous_commit')"
        ).fetchone()
    assert row == (18, "on", "on")


def test_server_listens_on_loopback_only_and_asks_for_its_password(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.url().replace(postgres_server.password, "wrong"))
    with postgres_server.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')"
        ).fetchone()
    assert row == ("127.0.0.1", "")


def test_server_keeps_what_was_committed_when_killed(server: PostgresServer) -> None:
    server.create_database("app")
    with server.connect("app") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    server.kill()
    server.start()
    with server.connect("app") as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_server_starts_over_a_stale_file_whose_process_id_is_taken(server: PostgresServer) -> None:
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n0\n{server.port}\n\n\n\n")
    server.start()
    assert server.is_running()


def test_server_start_replaces_a_running_one(server: PostgresServer) -> None:
    PostgresServer(server.folder, server.port).start()
    with server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_server_stop_leaves_no_process_and_is_repeatable(server: PostgresServer) -> None:
    server.stop()
    server.stop()
    assert not server.is_running()


def test_server_names_the_variable_when_its_port_is_taken() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = PostgresServer(Path(folder) / "server", port)
        with pytest.raises(StackError, match=f"Port {port} is taken.*POSTGRES_PORT="):
            server.start()
        server.remove()


def test_server_repeats_the_words_of_a_postgresql_that_refuses_to_start() -> None:
    with pytest.raises(StackError, match="no_such_setting"), temporary_server({"no_such_setting": "1"}):
        pass


def test_server_moves_out_of_a_folder_its_user_cannot_reach() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as another user")
    with tempfile.TemporaryDirectory() as closed:  # mode 700, as root's own folders are
        server = PostgresServer(Path(closed) / "server", free_port())
        try:
            server.start()
            assert Path(closed) not in server.folder.parents
            assert server.folder.stat().st_mode & 0o777 == 0o700
        finally:
            server.stop()
            server.remove()


def test_temporary_server_removes_what_a_killed_program_left_behind(server: PostgresServer) -> None:
    abandoned = server.folder.parent
    renamed = abandoned.with_name(abandoned.name.replace(f"-{os.getpid()}-", "-999999999-"))
    server.stop()
    abandoned.rename(renamed)
    left = PostgresServer(renamed / "server", server.port)
    left.start()
    with temporary_server():
        assert not left.is_running()
        assert not renamed.exists()


def test_create_database_copies_a_template_and_drop_ends_its_sessions(server: PostgresServer) -> None:
    server.create_database("pattern")
    with server.connect("pattern") as connection:
        connection.execute("CREATE TABLE copied (n int)")
    server.create_database("copy", template="pattern")
    server.create_database("copy")
    with server.connect("copy") as connection:
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (0,)
        server.drop_database("copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
