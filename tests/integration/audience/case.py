"""Users, audiences and cohorts of the tests of audiences."""

from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle_emails.audience import Audience
from lifecycle_emails.cohort import Cohort, natural_cohort
from lifecycle_emails.errors import SourceError
from tests.factories import AUDIENCE, IncludeFolder, make_campaign

DAY = date(2026, 5, 1)
WINDOW = "created_at >= %(cohort_start)s AND created_at < %(cohort_end)s"


def add_users(source: psycopg.Connection[Any], *rows: tuple[int, str, str, str]) -> None:
    """Add users: id, address, name, time of creation."""
    with source.cursor() as cursor:
        cursor.execute("SET LOCAL client_encoding = 'UTF8'")
        cursor.executemany(
            "INSERT INTO users (user_id, email, full_name, created_at) VALUES (%s, %s, %s, %s)", rows
        )
    source.commit()


def audience(tmp_path: Path, text: str = AUDIENCE, **campaign: Any) -> Audience:
    include = IncludeFolder(tmp_path)
    include.write("audiences/users.sql", text)
    return Audience.load(include.path, make_campaign(**campaign))


def cohort(day: date = DAY, **campaign: Any) -> Cohort:
    return natural_cohort(make_campaign(**campaign), day)


def failure(subject: Audience, source: psycopg.Connection[Any]) -> str:
    with pytest.raises(SourceError) as error:
        list(subject.members(source, cohort()))
    assert source.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    return str(error.value)
