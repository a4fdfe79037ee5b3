"""Servers of their own that are restored, copied or promoted: who notices, and nobody gets a second copy."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from lifecycle_emails.cli import main
from lifecycle_emails.ledger.attempt import Passage
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.witness import (
    FileWitness,
    Witness,
    durability_warnings,
    learn_server,
    watch,
)
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer, programs_folder, temporary_server
from tests.integration.ledger.going_back import ask_gate, let_go, now, say_moved
from tests.integration.ledger.rows import (
    COHORT_DATE,
    add_cohort,
    connect,
    make_campaign,
    states,
)

CAMPAIGN = "day4_follow_up"


@pytest.fixture
def witness(tmp_path: Path) -> FileWitness:
    return FileWitness(tmp_path / "outside" / "witness.json")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with temporary_server() as one:
        yield one


@pytest.fixture
def ledger_of_owner(server: PostgresServer) -> str:
    """A ledger owned by an ordinary role, who is all that the package may need to be."""
    with server.connect() as superuser:
        superuser.execute("CREATE ROLE owner LOGIN PASSWORD 'made-up'")
        superuser.execute("CREATE DATABASE ledger OWNER owner")
    url = f"postgresql://owner:made-up@127.0.0.1:{server.port}/ledger"
    with connect(url) as ledger:
        migrate(ledger)
        add_cohort(ledger)
        add_sends_as_owner(ledger, ["1", "2"])
    return url


def add_sends_as_owner(ledger: psycopg.Connection, user_ids: list[str]) -> None:
    ledger.execute("INSERT INTO lifecycle.batches VALUES (%s, %s, 0)", (CAMPAIGN, COHORT_DATE))
    for user_id in user_ids:
        ledger.execute(
            "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch) VALUES (%s, %s, %s, 0)",
            (user_id, CAMPAIGN, COHORT_DATE),
        )
    ledger.execute("UPDATE lifecycle.sends SET state = 'ready', ready_at = now()")


def send(url: str, user_id: str) -> None:
    """Pass the gate and be accepted."""
    assert ask_gate(url, user_id) is Passage.PASSED
    with connect(url) as ledger:
        ledger.execute(
            "UPDATE lifecycle.sends SET state = 'sent', sent_at = now() WHERE user_id = %s", (user_id,)
        )


def no_second_copy(url: str, witness: Witness | None, since: datetime) -> None:
    """Nothing passes the gate until the release, and after it only who a person decides."""
    with connect(url) as ledger:
        assert ask_gate(url) is Passage.HALTED
        assert watch(ledger, witness) is not None
        assert let_go(ledger, witness, since) == 2
        assert watch(ledger, witness) is None
        assert states(ledger) == {"1": "in_doubt", "2": "in_doubt"}
        assert ask_gate(url) is Passage.LOST
        settle(ledger, CAMPAIGN, Which(["1"]), SettleAs.SENT, reason="in the log of the mail server")
        settle(ledger, CAMPAIGN, Which(["2"]), SettleAs.SEND_AGAIN, reason="never left")
        ledger.execute("UPDATE lifecycle.sends SET state = 'ready', ready_at = now() WHERE state = 'planned'")
        assert ask_gate(url, "2") is Passage.PASSED
        assert ask_gate(url, "1") is Passage.LOST


def programs() -> Path:
    return programs_folder()


def test_ledger_restored_from_a_dump_sends_nobody_twice(
    server: PostgresServer, ledger_of_owner: str, tmp_path: Path, witness: FileWitness
) -> None:
    since = now()
    dump = tmp_path / "ledger.dump"
    subprocess.run([programs() / "pg_dump", "-Fc", "-f", dump, ledger_of_owner], check=True)
    with connect(ledger_of_owner) as ledger:
        assert watch(ledger, witness) is None
    send(ledger_of_owner, "1")
    with server.connect() as superuser:
        superuser.execute("DROP DATABASE ledger WITH (FORCE)")
        superuser.execute("CREATE DATABASE ledger OWNER owner")
    subprocess.run([programs() / "pg_restore", "-d", ledger_of_owner, dump], check=True)
    no_second_copy(ledger_of_owner, None, since)


def test_copy_of_the_whole_server_put_back_is_seen_by_the_witness_alone(
    server: PostgresServer, ledger_of_owner: str, tmp_path: Path, witness: FileWitness
) -> None:
    since = now()
    server.stop()
    backup = server.folder / "backup"
    shutil.copytree(server.data, backup, symlinks=True)
    server.start()
    send(ledger_of_owner, "1")
    with connect(ledger_of_owner) as ledger:
        assert watch(ledger, witness) is None
    server.stop()
    shutil.rmtree(server.data)
    own(server, backup).rename(server.data)
    server.start()
    with connect(ledger_of_owner) as ledger:
        assert watch(ledger, None) is None  # same cluster, same timeline, same table
        assert watch(ledger, witness) is not None
    no_second_copy(ledger_of_owner, witness, since)


def test_promoted_standby_that_lacks_the_last_commits_sends_nobody_twice(
    server: PostgresServer, ledger_of_owner: str, tmp_path: Path
) -> None:
    standby = PostgresServer(tmp_path / "standby", free_port(), server._settings)
    standby._settings["port"] = str(standby.port)
    copied = server._user.run(
        [
            programs() / "pg_basebackup",
            "-d",
            server.url(),
            "-D",
            standby.data,
            "-R",
            "-c",
            "fast",
            "-X",
            "stream",
        ]
    )
    assert copied.returncode == 0, copied.stdout
    shutil.copy(server.folder / "password", standby.folder / "password")
    since = now()
    try:
        standby.start()
        with connect(ledger_of_owner) as ledger:
            wait_for(lambda: ledger.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (1,))
            warnings = durability_warnings(ledger, None)
        assert any("synchronous_standby_names is empty" in warning for warning in warnings)
        standby.stop()  # lags behind
        send(ledger_of_owner, "1")
        server.stop()  # for good
        standby.start()
        with standby.connect() as superuser:
            assert superuser.execute("SELECT pg_promote()").fetchone() == (True,)
        url = ledger_of_owner.replace(f":{server.port}/", f":{standby.port}/")
        no_second_copy(url, None, since)
    finally:
        standby.remove()


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at


def own(server: PostgresServer, folder: Path) -> Path:
    """Give a copied folder to the server's user, with the permissions that Postgres wants."""
    for path in (folder, *folder.rglob("*")):
        server._user.own(path)
    return folder


def test_fsync_off_refuses_to_send(ledger_of_owner: str, server: PostgresServer) -> None:
    with server.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET fsync = off")
        superuser.execute("SELECT pg_reload_conf()")
        while superuser.execute("SHOW fsync").fetchone() == ("on",):
            pass
    assert ask_gate(ledger_of_owner) is Passage.HALTED
    with connect(ledger_of_owner) as ledger:
        assert any("fsync is off" in warning for warning in durability_warnings(ledger, None))
        assert "fsync is off" in "".join(reconcile(ledger, make_campaign(), [COHORT_DATE]).problems)


def test_full_page_writes_off_is_warned_of(ledger_of_owner: str, server: PostgresServer) -> None:
    with server.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET full_page_writes = off")
        superuser.execute("SELECT pg_reload_conf()")
        while superuser.execute("SHOW full_page_writes").fetchone() == ("on",):
            pass
    with connect(ledger_of_owner) as ledger:
        [warning] = [words for words in durability_warnings(ledger, None) if "full_page_writes" in words]
    assert "a crash could damage the ledger" in warning


@pytest.mark.parametrize(
    ("function", "learns"),
    [
        ("pg_control_system()", "migrate"),
        ("pg_control_system()", "watch"),
        ("pg_walfile_name(pg_lsn)", "watch"),  # the system identifier alone is told
    ],
)
def test_server_that_tells_its_identity_later_is_known_from_then_on(
    server: PostgresServer, function: str, learns: str
) -> None:
    with server.connect() as superuser:
        superuser.execute("CREATE ROLE owner LOGIN PASSWORD 'made-up'")
        superuser.execute("CREATE DATABASE ledger OWNER owner")
    url = f"postgresql://owner:made-up@127.0.0.1:{server.port}/ledger"
    with server.connect("ledger") as superuser, connect(url) as ledger:
        superuser.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC".encode())
        migrate(ledger)
        assert watch(ledger, None) is None
        assert "does not tell its identity" in durability_warnings(ledger, None)[0]
        superuser.execute(f"GRANT EXECUTE ON FUNCTION {function} TO owner".encode())
        assert "has not noted its server's identity yet" in durability_warnings(ledger, None)[0]
        if learns == "migrate":
            assert main(["--ledger", url, "migrate"]) == 0
        else:
            watch(ledger, None)
        [no_witness] = durability_warnings(ledger, None)
        assert "there is no witness" in no_witness
        say_moved(ledger)
        assert "another timeline" in str(watch(ledger, None))


def test_server_that_differs_is_not_learnt(ledger_of_owner: str) -> None:
    with connect(ledger_of_owner) as ledger:
        ledger.execute(
            "UPDATE lifecycle.known_server SET system_identifier = NULL, sends_oid = sends_oid::bigint + 1"
        )
        learn_server(ledger)  # as lifecycle migrate does
        assert watch(ledger, None) is not None
        ledger.execute("UPDATE lifecycle.known_server SET sends_oid = 'lifecycle.sends'::regclass")
        learn_server(ledger)  # what was found holds until a person has looked
        assert ledger.execute("SELECT system_identifier FROM lifecycle.known_server").fetchall() == [(None,)]


def test_server_that_does_not_tell_its_identity_still_sends_and_is_warned_of(
    ledger_of_owner: str, server: PostgresServer
) -> None:
    with server.connect("ledger") as superuser:
        superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
    assert ask_gate(ledger_of_owner) is Passage.PASSED
    with connect(ledger_of_owner) as ledger:
        assert watch(ledger, None) is None
        warnings = durability_warnings(ledger, None)
    assert any("does not tell its identity" in warning for warning in warnings)
    assert any("there is no witness" in warning for warning in warnings)
