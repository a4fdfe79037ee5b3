"""The audience of a campaign: which users its query returns for a cohort, and what it says about them.

Reads the source, a Postgres database that belongs to somebody else: read-only, in short transactions that
state every setting. Must not know the ledger. What it says of users is returned, and never stands in an
error.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg import RawCursor, capabilities, sql
from psycopg.rows import tuple_row

from lifecycle_emails.audience_text import audience_name, read_audience_text
from lifecycle_emails.campaign import RESERVED_VARIABLES, Campaign
from lifecycle_emails.cohort import Cohort
from lifecycle_emails.errors import SourceError
from lifecycle_emails.source_error import explain
from lifecycle_emails.source_value import read_unusual_times_as_text

UserIdType: TypeAlias = Literal["bigint", "integer", "uuid", "text"]
Source: TypeAlias = psycopg.Connection[Any]
_Cursor: TypeAlias = RawCursor[tuple[Any, ...]]

STATEMENT_TIMEOUT_SECONDS = 1800
"""How long one query of the source may take, its answer included."""

_USER_ID_TYPES: dict[str, UserIdType] = {
    "int8": "bigint",
    "int4": "integer",
    "int2": "integer",
    "uuid": "uuid",
    "text": "text",
    "varchar": "text",
}
_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "name", "extension"})
_VARIABLE = re.compile(r"[^\W\d]\w*")
# Rows of an answer per message from the client library: memory stays small, and each row costs a microsecond.
# COPY costs two to four times as much, and would need the window's bounds spliced into the text.
_ROWS_PER_CHUNK = 1000 if capabilities.has_stream_chunked() else 1


@dataclass(frozen=True)
class AudienceColumns:
    """What an audience returns: the type of its user ids, and its columns, which are template variables."""

    user_id_type: UserIdType
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Audience:
    """One SQL query that returns ``user_id``, ``email`` and the template's variables of a cohort's users.

    The methods take an open psycopg connection and read in a transaction of their own (a savepoint, where
    one is open): READ ONLY, in the source's time zone, so that a ``created_at`` without one is read right.
    They raise SourceError when the query cannot be run or does not return what it must; the message names
    the audience's file and line, and holds no value of a row.
    """

    name: str
    """The file, as messages call it."""
    query: str
    """The text, with the cohort's window as ``$1`` and ``$2``."""
    timezone: str
    """What timestamps without time zone mean in the source."""

    @classmethod
    def load(cls, include_dir: Path, campaign: Campaign) -> Audience:
        """Read the campaign's audience. Raises ConfigurationError for a text that is not one query."""
        return cls(
            name=audience_name(include_dir, campaign.audience),
            query=read_audience_text(include_dir, campaign.audience),
            timezone=campaign.source_timezone,
        )

    def check(self, source: Source, cohort: Cohort) -> AudienceColumns:
        """Return what the query would return, as the server says without running it."""
        with self._reading(source) as cursor:
            return self._columns(cursor, cohort)

    def members(self, source: Source, cohort: Cohort) -> Generator[tuple[str, str | None], None, None]:
        """Stream the cohort's users: user id as text, e-mail address or None.

        Ordered by the id's text in byte order (``COLLATE "C"``). A user who is returned twice comes twice,
        one after the other. The query runs once; memory does not grow with its answer. The transaction
        lasts until the iterator is exhausted or closed.
        """
        query = self._wrapped("members")
        with self._reading(source) as cursor:
            self._columns(cursor, cohort)
            with self._explaining(query), closing(_streamed(cursor, query, cohort)) as rows:
                for user_id, email in rows:
                    if not user_id:
                        raise self._error(
                            "a row has no user_id; add `AND user_id IS NOT NULL`, or mend the data"
                        )
                    yield user_id, email

    def profiles(
        self,
        source: Source,
        cohort: Cohort,
        user_ids: Sequence[str],
        columns: AudienceColumns | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return the rows, by user id as text, of those of ``user_ids`` who are in the audience now.

        A row maps column names to Python values (times that Python cannot hold are text, as the database
        writes them); ``user_id`` and ``email`` are among them. ``columns``: what
        `check` returned, to save asking again.
        """
        with self._reading(source) as cursor:
            columns = columns or self._columns(cursor, cohort)
            query = self._wrapped("profiles", user_id_type=columns.user_id_type)
            with self._explaining(query):
                cursor.execute(query.encode(), [*_window(cohort), list(user_ids)], prepare=False)
                rows = cursor.fetchall()
                variables = [column.name for column in (cursor.description or ())[1:]]
        found = {row[0]: dict(zip(variables, row[1:], strict=True)) for row in rows}
        if len(found) != len(rows):
            raise self._error("a user is returned twice; return one row for each user_id")
        return found

    @contextmanager
    def _reading(self, source: Source) -> Iterator[_Cursor]:
        """Open a transaction with every setting stated, and give a cursor that takes ``$1`` as parameters."""
        settings = [self.timezone, f"{STATEMENT_TIMEOUT_SECONDS}s"]
        with (
            self._explaining(""),
            source.transaction(),
            RawCursor(source, row_factory=tuple_row) as cursor,
        ):
            read_unusual_times_as_text(cursor.adapters)
            cursor.execute(_statement("settings"), settings, prepare=False)
            yield cursor

    def _columns(self, cursor: _Cursor, cohort: Cohort) -> AudienceColumns:
        query = self._wrapped("columns")
        with self._explaining(query):
            # With parameters, hence by the extended protocol, which refuses a second statement.
            cursor.execute(query.encode(), _window(cohort), prepare=False)
            described = [(column.name, column.type_code) for column in cursor.description or ()]
        types = {name: _type_name(cursor, oid) for name, oid in described}
        names = tuple(name for name, _ in described)
        mistakes = dict.fromkeys(_mistakes(names, types))  # in order, each once
        if mistakes:
            raise self._error("; ".join(mistakes))
        return AudienceColumns(_USER_ID_TYPES[types["user_id"]], names)

    def _wrapped(self, name: str, *, user_id_type: str = "") -> str:
        """Return the statement ``name`` around this audience, whose text starts on its second line."""
        parts = {"audience": sql.SQL(self.query), "user_id_type": sql.SQL(user_id_type)}
        return sql.SQL(_statement(name).decode()).format(**parts).as_string()

    @contextmanager
    def _explaining(self, query: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explain(error, audience=self.name, text=self.query, sent=query) from None

    def _error(self, mistake: str) -> SourceError:
        return SourceError(f"{self.name}: {mistake}.")


def _mistakes(names: Sequence[str], types: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with an audience that returns columns of these ``names`` and ``types``."""
    for name in names:
        if names.count(name) > 1:
            yield f"it returns the column `{name}` twice, so give each a name of its own with AS"
        if not _VARIABLE.fullmatch(name):
            yield f"its column `{name}` cannot be a template variable, so name it with AS"
        if name in RESERVED_VARIABLES:
            yield f"its column `{name}` has the name of a variable of every template, so rename it with AS"
    for name in ("user_id", "email"):
        if name not in types:
            yield f"it returns no column `{name}`, so add it to the SELECT list"
    if types.get("user_id", "text") not in _USER_ID_TYPES:
        yield f"its user_id is of type {types['user_id']}, so cast it to bigint, integer, uuid or text"
    if types.get("email", "text") not in _TEXT_TYPES:
        yield f"its email is of type {types['email']}, so return the address as text"


def _type_name(cursor: _Cursor, oid: int) -> str:
    """Return the name of a built-in type; all others, such as citext, are called ``extension``."""
    info = cursor.adapters.types.get(oid)
    return info.name if info else "extension"


def _streamed(cursor: _Cursor, query: str, cohort: Cohort) -> Generator[tuple[Any, ...], None, None]:
    """Run ``query`` and give its rows as they come; closing the generator cancels it."""
    yield from cursor.stream(query.encode(), _window(cohort), size=_ROWS_PER_CHUNK)


def _window(cohort: Cohort) -> list[Any]:
    return [cohort.window_start, cohort.window_end]


@cache
def _statement(name: str) -> bytes:
    return (files("lifecycle_emails") / "sql" / "audience" / f"{name}.sql").read_bytes()
