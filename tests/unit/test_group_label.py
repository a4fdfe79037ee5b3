"""How a mapped task is named after the batches that it sends."""

from datetime import date, timedelta

import pytest
from airflow.models.taskinstance import TaskInstance

from lifecycle_emails.ledger.batches import Group

DAY = date(2026, 5, 1)


@pytest.mark.parametrize(
    ("batches", "label"),
    [
        ([(DAY, 0)], "2026-05-01 batch 0 (7 users)"),
        ([(DAY, 0), (DAY, 3)], "2026-05-01 batch 0, 3 (7 users)"),
        ([(DAY, 2), (DAY + timedelta(days=1), 0)], "2026-05-01 batch 2; 2026-05-02 batch 0 (7 users)"),
        (
            [(DAY + timedelta(days=n), 0) for n in range(30)],
            "30 batches of 2026-05-01 to 2026-05-30 (7 users)",
        ),
        ([(DAY, n) for n in range(100)], "100 batches of 2026-05-01 (7 users)"),
    ],
)
def test_group_is_named_by_batches_and_many_of_them_by_number(
    batches: list[tuple[date, int]], label: str
) -> None:
    assert Group(tuple(batches), 7).label == label


def test_longest_name_fits_the_column_that_airflow_keeps_it_in() -> None:
    groups = [Group(tuple((DAY, n) for n in range(count)), 10**9) for count in range(1, 1000)]
    longest = max(len(group.label) for group in groups)
    assert longest < TaskInstance.__table__.c.rendered_map_index.type.length
