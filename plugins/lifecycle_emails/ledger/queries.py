"""The ledger's SQL by name. Knows files, nothing of what they say."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> bytes:
    """The text of ``sql/queries/<name>.sql``, with psycopg's ``%(name)s`` parameters, always bound.

    Bytes, because psycopg takes them from anywhere, while a ``str`` query must be a literal.
    """
    return (files("lifecycle_emails") / "sql" / "queries" / f"{name}.sql").read_bytes()
