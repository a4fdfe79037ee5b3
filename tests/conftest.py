"""Fixtures for every test: one real PostgreSQL per session, and databases of their own per test.

A fixture that gives a database gives its connection URL (a str); the test opens what connections it needs.
"""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from lifecycle_emails.errors import LifecycleError
from local_stack import example_app
from local_stack.catcher import Catcher, running_catcher
from local_stack.postgres import PostgresServer, temporary_server
from tests.address_search import Listener, addresses_in_postgres

_numbers = itertools.count(1)

# The same examples every time, and no deadline for each: how fast one is says more of the machine than of the code.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
# What a long run plays with: pytest --hypothesis-profile=long. Something else every time; a failure is kept and replayed.
settings.register_profile(
    "long", max_examples=500, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="session")
def listener() -> Iterator[Listener]:
    """Hear everything that the package logs, at any level, and every error that it makes."""
    listener = Listener()
    make_error = LifecycleError.__init__

    def heard(self: LifecycleError, *words: object) -> None:
        listener.hear(words)
        make_error(self, *words)

    logger = logging.getLogger("lifecycle_emails")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LifecycleError, "__init__", heard)
        logger.addHandler(listener)
        logger.setLevel(logging.DEBUG)
        yield listener
        logger.removeHandler(listener)


@pytest.fixture(autouse=True)
def nobody_is_named(listener: Listener) -> Iterator[None]:
    """Fail a test during which a log line or an error of the package names somebody's address."""
    listener.take()
    yield
    assert listener.take() == [], "an address stands in a log line or an error"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL 18 of this session's own. fsync is on, as the ledger demands."""
    with temporary_server() as server:
        yield server


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the URL of a new, empty database."""
    yield from _database(postgres_server)


@pytest.fixture(scope="session")
def ledger_template(postgres_server: PostgresServer) -> str:
    """Give the name of a migrated database to copy; nobody may stay connected to it."""
    from lifecycle_emails.ledger.migration import migrate  # noqa: PLC0415  (for the tests that need a ledger)

    postgres_server.create_database("ledger_template")
    with postgres_server.connect("ledger_template") as connection:
        migrate(connection)
    return "ledger_template"


@pytest.fixture
def ledger_database(postgres_server: PostgresServer, ledger_template: str) -> Iterator[str]:
    """Give the URL of a new database with a migrated, empty ledger; at the end no address may stand in it."""
    for url in _database(postgres_server, ledger_template):
        yield url
        with psycopg.connect(url, autocommit=True) as ledger:
            assert list(addresses_in_postgres(ledger, "lifecycle")) == []


@pytest.fixture(scope="session")
def source_template(postgres_server: PostgresServer) -> str:
    """Give the name of a database with an empty users table to copy."""
    postgres_server.create_database("source_template")
    with postgres_server.connect("source_template") as connection:
        example_app.create_table(connection)
    return "source_template"


@pytest.fixture
def source_database(postgres_server: PostgresServer, source_template: str) -> Iterator[str]:
    """Give the URL of a new database with the example application's users table, empty."""
    yield from _database(postgres_server, source_template)


@pytest.fixture
def smtp_catcher(tmp_path: Path) -> Iterator[Catcher]:
    """Give an SMTP server that records what it accepts: its `port`, and its `store` to read from."""
    with running_catcher(tmp_path / "mails.sqlite") as catcher:
        yield catcher


def _database(server: PostgresServer, template: str | None = None) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    server.create_database(name, template=template)
    yield server.url(name)
    server.drop_database(name)
