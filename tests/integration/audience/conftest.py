"""A source whose settings could mislead."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def source(source_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose role and database have every setting that could mislead."""
    with psycopg.connect(source_database, autocommit=True) as setup:
        for setting in (
            "TimeZone = 'Asia/Kathmandu'",
            "DateStyle = 'German'",
            "IntervalStyle = 'sql_standard'",
            "client_encoding = 'LATIN1'",
            "default_transaction_isolation = 'serializable'",
        ):
            setup.execute(f"ALTER DATABASE {setup.info.dbname} SET {setting}".encode())
    with psycopg.connect(source_database) as connection:
        yield connection
