"""The example application: a database with the users that the example campaigns write to.

It stands for a team's own application and knows nothing of campaigns or the ledger.
"""

from pathlib import Path

import psycopg

_SCHEMA = Path(__file__).with_suffix(".sql")


def create_table(connection: psycopg.Connection) -> None:
    """Create the users table; no error when it exists."""
    connection.execute(_SCHEMA.read_bytes())
