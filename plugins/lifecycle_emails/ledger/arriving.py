"""How an audience arrives in the ledger: copied straight into the sends, or set aside to be compared.

Knows the tables through named queries. Must not know the source, nor what becomes of a planned user. No
address is written, only its keyed hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import chain, islice
from typing import Any, TypeAlias

from psycopg.errors import UniqueViolation

from lifecycle_emails.address import AddressHasher
from lifecycle_emails.errors import InvalidAddress, SourceError
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection

Arrival: TypeAlias = tuple[str, bytes | None, str | None]
"""A user id, and the hash of the address or what is wrong with it."""

CHUNK = 20_000
"""How many users are copied at once, and once more when one of them was known before.

Each chunk is a savepoint. More than 64 in one transaction slow down everybody who looks at its rows.
"""

_DAY_ZERO = date(2000, 1, 1)  # a date is, in binary, its distance from this day


def hashed_members(
    members: Iterator[tuple[str, str | None]], hash_key: bytes, audience_name: str
) -> Iterator[Arrival]:
    """Hash the addresses of an audience whose users come in order of their ids.

    Raises SourceError for a user who comes twice, and for a user id with an @ in it: ids are kept for
    good and stand in logs, where no address belongs.
    """
    hashed, previous = AddressHasher(hash_key), None
    for user_id, email in members:
        if "@" in user_id:
            raise SourceError(
                f"{audience_name} returns a user_id with an @ in it; nothing was planned. "
                "Make the query return the user's id in the source, never an address"
            )
        if user_id == previous:  # they come in order, so doubles are neighbours
            raise SourceError(
                f"{audience_name} returns user {user_id} more than once; nothing was planned. "
                "Make the query return one row per user (a join often needs DISTINCT ON or EXISTS)"
            )
        previous = user_id
        try:
            arrival: Arrival = (user_id, hashed(email), None)
        except InvalidAddress as mistake:
            arrival = (user_id, None, str(mistake))
        yield arrival


def copy_arrivals(
    ledger: LedgerConnection, arrivals: Iterator[Arrival], arguments: dict[str, Any]
) -> tuple[int, int]:
    """Copy an audience into the ledger; return how many users it has, and how many are planned by that.

    Into a cohort of the first time users are copied as sends, chunk by chunk, until somebody turns out to be
    known. That chunk and all that follow are set aside in the table ``arrivals``, as is everybody of a cohort
    that was planned before, and whoever has no usable address.
    """
    planned = 0
    left: Iterator[Arrival] = iter(())
    if arguments["first_time"]:
        planned, left = _copy_new(ledger, arrivals, arguments)
    aside = _set_aside(ledger, chain(left, arrivals))
    ledger.execute(query("analyze_arrivals"))
    return planned + aside, planned


def _copy_new(
    ledger: LedgerConnection, arrivals: Iterator[Arrival], arguments: dict[str, Any]
) -> tuple[int, Iterator[Arrival]]:
    """Copy users as sends while all of a chunk are new; return their number, and the chunk that was not."""
    planned = 0
    while True:
        chunk: list[Arrival] = []
        try:
            with ledger.transaction():
                _copy_chunk(ledger, islice(arrivals, CHUNK), chunk, planned, arguments)
        except UniqueViolation:
            return planned, iter(chunk)
        planned += len(chunk)
        unaddressed = [arrival for arrival in chunk if arrival[1] is None]
        if unaddressed:
            _set_aside(ledger, iter(unaddressed))
        if len(chunk) < CHUNK:
            return planned, iter(())


def _copy_chunk(
    ledger: LedgerConnection,
    arrivals: Iterator[Arrival],
    chunk: list[Arrival],
    planned: int,
    arguments: dict[str, Any],
) -> None:
    """Copy ``arrivals`` as sends while they are read, and collect them in ``chunk``."""
    campaign, batch_size = arguments["campaign"], arguments["batch_size"]
    day = (arguments["cohort_date"] - _DAY_ZERO).days
    with ledger.cursor() as cursor, cursor.copy(query("copy_sends")) as copy:
        copy.set_types(["text", "text", "int4", "int4", "bytea"])
        for number, arrival in enumerate(arrivals, start=planned):
            chunk.append(arrival)
            copy.write_row((arrival[0], campaign, day, number // batch_size, arrival[1]))


def _set_aside(ledger: LedgerConnection, arrivals: Iterator[Arrival]) -> int:
    number = 0
    with ledger.cursor() as cursor, cursor.copy(query("copy_arrivals")) as copy:
        copy.set_types(["text", "bytea", "text"])
        for number, arrival in enumerate(arrivals, start=1):  # noqa: B007  (the last one is the count)
            copy.write_row(arrival)
    return number
