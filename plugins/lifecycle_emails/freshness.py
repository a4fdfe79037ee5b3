"""How fresh the source is: one query of a team's own, which says up to when the data are complete.

Reads the source read-only, with every setting stated. Must not know the ledger, or what a stale source means.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg import RawCursor, sql
from psycopg.rows import tuple_row

from lifecycle_emails.audience_text import audience_name
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.errors import ConfigurationError, SourceError
from lifecycle_emails.source_error import explain

STATEMENT_TIMEOUT_SECONDS = 300
"""How long the query may take."""


@dataclass(frozen=True)
class Freshness:
    """A query that returns one row with one time."""

    name: str
    """The file, as messages call it."""
    query: str
    timezone: str
    """What a time without zone means in the source."""

    @classmethod
    def load(cls, include_dir: Path, campaign: Campaign) -> Freshness | None:
        """Read the campaign's query; None when it has none. Raises ConfigurationError for a missing file."""
        if campaign.volume is None or campaign.volume.freshness is None:
            return None
        name = audience_name(include_dir, campaign.volume.freshness)
        try:
            text = (include_dir / "audiences" / campaign.volume.freshness).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ConfigurationError(f"there is no file {name}. Write one SQL query into it.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{name} is not UTF-8 text; save it as UTF-8.") from None
        return cls(name, text.rstrip().rstrip(";"), campaign.source_timezone)

    def fresh_until(self, source: psycopg.Connection[Any]) -> datetime | None:
        """Ask the source up to when its data are complete; None when it says NULL.

        Raises SourceError when the query cannot be run or returns anything but one time.
        """
        statement = (
            sql.SQL(_statement("freshness").decode()).format(freshness=sql.SQL(self.query)).as_string()
        )
        try:
            with source.transaction(), RawCursor(source, row_factory=tuple_row) as cursor:
                cursor.execute(
                    _statement("settings"), [self.timezone, f"{STATEMENT_TIMEOUT_SECONDS}s"], prepare=False
                )
                # with a parameter, hence by the extended protocol, which refuses a second statement
                rows = cursor.execute(statement.encode(), [2], prepare=False).fetchall()
                # a time without zone is one of the source's zone, as in an audience
                cursor.execute(b"SELECT $1::timestamptz", [_only_time(rows, self.name)], prepare=False)
                (time,) = cursor.fetchone() or (None,)
        except psycopg.Error as error:
            raise explain(error, audience=self.name, text=self.query, sent=statement) from None
        fresh_until: datetime | None = time
        return fresh_until


def _only_time(rows: list[tuple[Any, ...]], name: str) -> datetime | None:
    if len(rows) != 1 or len(rows[0]) != 1 or not isinstance(rows[0][0], datetime | None):
        raise SourceError(
            f"{name}: it must return one row with one time, such as `SELECT max(loaded_at)` of its loads."
        )
    time: datetime | None = rows[0][0]
    return time


def _statement(name: str) -> bytes:
    return (files("lifecycle_emails") / "sql" / "audience" / f"{name}.sql").read_bytes()
