"""Dates and times of the source as Python has them, and as text where Python has none such.

PostgreSQL knows more of them than Python: infinity, years before 1 and after 9999, 24:00, very long spans.
One of these in one row must not cost the other users of the query their mail. Must not know audiences.
"""

from __future__ import annotations

from typing import Any

from psycopg import DataError
from psycopg.abc import AdaptContext, Buffer, Loader
from psycopg.adapt import AdaptersMap
from psycopg.adapt import Loader as LoaderBase
from psycopg.pq import Format

_TYPES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")


def read_unusual_times_as_text(adapters: AdaptersMap) -> None:
    """Let ``adapters`` (of one cursor) give the database's own text for a time that Python cannot hold."""
    for name in _TYPES:
        oid = adapters.types[name].oid
        usual = adapters.get_loader(oid, Format.TEXT)
        if usual is not None:
            adapters.register_loader(oid, _or_text(usual))


def _or_text(usual: type[Loader]) -> type[Loader]:
    class OrText(LoaderBase):
        # Around the usual loader, not derived from it: psycopg calls its own ones past their Python methods.
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._usual.load(data)
            except (DataError, OverflowError):
                return bytes(data).decode()

    return OrText
