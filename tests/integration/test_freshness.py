"""A team's own query on a real Postgres says how fresh the source is."""

from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.errors import SourceError
from lifecycle_emails.freshness import Freshness
from tests.factories import IncludeFolder


def freshness(folder: Path, query: str, **campaign: object) -> Freshness:
    include = IncludeFolder(folder)
    include.write("audiences/fresh.sql", query)
    include.write_campaign(volume={"freshness": "fresh.sql"}, **campaign)
    loaded = Freshness.load(include.path, load_campaign(include.path, "welcome"))
    assert loaded is not None
    return loaded


def test_freshness_is_none_for_a_campaign_without_a_query(tmp_path: Path) -> None:
    include = IncludeFolder(tmp_path)
    assert Freshness.load(include.path, load_campaign(include.path, "welcome")) is None
    include.write_campaign(volume=False)
    assert Freshness.load(include.path, load_campaign(include.path, "welcome")) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT timestamptz '2026-05-02T00:00Z';\n", datetime(2026, 5, 2, tzinfo=UTC)),
        ("SELECT timestamp '2026-05-02 02:00' -- without zone", datetime(2026, 5, 2, tzinfo=UTC)),
        ("SELECT max(created_at) FROM users", None),
    ],
)
def test_freshness_is_the_time_that_the_query_returns(
    tmp_path: Path, source_database: str, query: str, expected: datetime | None
) -> None:
    with psycopg.connect(source_database, autocommit=True) as source:
        asked = freshness(tmp_path, query, source_timezone="Europe/Berlin")
        assert asked.fresh_until(source) == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1", "must return one row with one time"),
        ("SELECT now(), now()", "must return one row with one time"),
        ("SELECT now() WHERE false", "must return one row with one time"),
        (
            "SELECT generate_series(now(), now() + interval '9 days', '1 day')",
            "must return one row with one time",
        ),
        ("SELECT\n  newest FROM users", 'line 2: column "newest" does not exist'),
        ("SELECT now()) AS x; DELETE FROM users; SELECT (now()", "fresh.sql"),
    ],
)
def test_freshness_that_is_not_one_time_names_the_file(
    tmp_path: Path, source_database: str, query: str, said: str
) -> None:
    with psycopg.connect(source_database, autocommit=True) as source:
        with pytest.raises(SourceError, match=r"include/audiences/fresh\.sql") as error:
            freshness(tmp_path, query).fresh_until(source)
        assert said in str(error.value)
