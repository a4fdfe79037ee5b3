"""Migrations: once each, whole, safe to run twice at once, and never silently another text."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.migration import check_migrated, migrate, migrations
from tests.integration.ledger.rows import connect


def test_migrate_applies_everything_once(empty_database: str) -> None:
    with connect(empty_database) as connection:
        assert migrate(connection) == [migration.name for migration in migrations()]
        assert migrate(connection) == []
        check_migrated(connection)


def test_migrate_at_once_applies_everything_once(empty_database: str) -> None:
    def run(_: int) -> list[str]:
        with connect(empty_database) as connection:
            return migrate(connection)

    with ThreadPoolExecutor(4) as pool:
        applied = [name for names in pool.map(run, range(4)) for name in names]
    # whoever comes first to each; the calls finish in any order
    assert sorted(applied) == sorted(migration.name for migration in migrations())


def test_ledger_without_migrations_says_what_to_run(empty_database: str) -> None:
    with connect(empty_database) as connection, pytest.raises(LedgerError, match="Run: lifecycle migrate"):
        check_migrated(connection)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE lifecycle.migrations SET checksum = 'another' WHERE number = 1", "with another text"),
        ("INSERT INTO lifecycle.migrations VALUES (9999, 'of_the_future', 'x')", "newer than this package"),
    ],
)
def test_ledger_of_another_package_is_refused(ledger_database: str, change: str, message: str) -> None:
    with connect(ledger_database) as connection:
        connection.execute(change.encode())
        with pytest.raises(LedgerError, match=message):
            check_migrated(connection)


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_server_that_is_too_old_is_refused_and_left_as_it_is(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_emails.ledger.migration.MINIMUM_SERVER_VERSION", 990_000)
    with connect(empty_database) as connection:
        with pytest.raises(LedgerError, match="needs PostgreSQL 15 or newer; this server is version"):
            migrate(connection)
        assert connection.execute("SELECT to_regnamespace('lifecycle')").fetchone() == (None,)
