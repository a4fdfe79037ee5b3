"""An audience is copied straight into the sends, chunk by chunk, until somebody in it turns out to be known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from lifecycle_emails.errors import SourceError
from lifecycle_emails.ledger.arriving import CHUNK, Arrival, copy_arrivals, hashed_members
from lifecycle_emails.ledger.queries import query
from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, connect

ARGUMENTS: dict[str, Any] = {
    "campaign": "day4_follow_up", "cohort_date": COHORT_DATE, "batch_size": 3000, "first_time": True,
}  # fmt: skip


def arrivals(size: int) -> Iterator[Arrival]:
    """Users in order of their ids; one in a thousand has no usable address."""
    for number in range(size):
        mistake = "the address is empty" if number % 1000 == 7 else None
        yield f"{number:06}", None if mistake else b"h" * 16, mistake


@pytest.mark.parametrize("known", [None, 5, CHUNK - 1, CHUNK + 5])
def test_whole_audience_arrives_in_batches_in_order_wherever_somebody_is_known(
    ledger_database: str, known: int | None
) -> None:
    size, elsewhere = CHUNK + 10, COHORT_DATE - timedelta(days=1)
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=elsewhere)
        if known is not None:
            add_sends(ledger, [f"{known:06}"], cohort_date=elsewhere)
        with ledger.transaction():
            ledger.execute(query("create_arrivals"))
            found, planned = copy_arrivals(ledger, arrivals(size), ARGUMENTS)
            new = planned + ledger.execute(query("plan_arrivals"), ARGUMENTS).rowcount
            aside = {user for (user,) in ledger.execute("SELECT user_id FROM arrivals")}
        rows = ledger.execute(
            "SELECT user_id, batch, address_hash IS NULL FROM lifecycle.sends WHERE cohort_date = %s"
            ' ORDER BY user_id COLLATE "C"',
            (COHORT_DATE,),
        ).fetchall()
    whole_chunks = (size if known is None else known) // CHUNK * CHUNK
    assert planned == (size if known is None else whole_chunks)
    assert (found, new) == (size, size - (known is not None))
    wanted = [number for number in range(size) if number != known]
    assert [user for user, _, _ in rows] == [f"{number:06}" for number in wanted]
    assert [int(user) for user, _, unaddressed in rows if unaddressed] == [n for n in wanted if n % 1000 == 7]
    assert {f"{number:06}" for number in range(7, size, 1000)} <= aside
    batches = [batch for _, batch, _ in rows]
    assert batches == sorted(batches)
    assert set(batches) == set(range(max(batches) + 1))
    assert max(batches.count(batch) for batch in set(batches)) == ARGUMENTS["batch_size"]


def test_source_that_fails_behind_somebody_known_is_not_taken_for_one_that_ended(
    ledger_database: str,
) -> None:
    """The database's word about the known one comes last, and must not hide what stopped the reading."""
    elsewhere = COHORT_DATE - timedelta(days=1)

    def broken() -> Iterator[Arrival]:
        yield from arrivals(CHUNK // 2)
        raise SourceError("the source went away")

    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_cohort(ledger, cohort_date=elsewhere)
        add_sends(ledger, ["000005"], cohort_date=elsewhere)
        ledger.execute(query("create_arrivals"))
        with pytest.raises(SourceError, match="the source went away"), ledger.transaction():
            copy_arrivals(ledger, broken(), ARGUMENTS)
        assert ledger.execute("SELECT user_id FROM lifecycle.sends").fetchall() == [("000005",)]


def test_address_as_user_id_is_refused_and_not_repeated() -> None:
    hashed = hashed_members(iter([("ada@example.com", "ada@example.com")]), b"key", "welcome.sql")
    with pytest.raises(SourceError, match=r"welcome\.sql returns a user_id with an @") as refusal:
        next(hashed)
    assert "ada" not in str(refusal.value)


def test_user_who_comes_twice_is_named() -> None:
    members = iter([("1", "ada@example.com"), ("2", None), ("2", "ada@example.com")])
    hashed = hashed_members(members, b"key", "welcome.sql")
    assert [next(hashed)[2], next(hashed)[2]] == [None, "the address is empty"]
    with pytest.raises(SourceError, match=r"welcome\.sql returns user 2 more than once"):
        next(hashed)
