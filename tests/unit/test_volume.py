"""The breaker's arithmetic, with its limits looked up one user to either side."""

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle_emails.campaign import VolumeBreaker
from lifecycle_emails.volume import ENOUGH_HISTORY, VolumeTrouble, volume_figures, volume_trouble

WINDOW_END = datetime(2026, 5, 2, tzinfo=UTC)
TOO_MANY, TOO_FEW, NOT_FRESH = VolumeTrouble


def trouble(
    size: int,
    *,
    median: float | None = 1000.0,
    cohorts: int = 20,
    fresh_until: datetime | None = None,
    **fields: object,
) -> VolumeTrouble | None:
    breaker = VolumeBreaker.model_validate(fields)
    figures = volume_figures(breaker, size, cohorts=cohorts, median=median, fresh_until=fresh_until)
    return volume_trouble(breaker, figures, WINDOW_END)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, TOO_FEW),
        (333, TOO_FEW),
        (334, None),
        (1000, None),
        (3000, None),
        (3001, TOO_MANY),
        (50_000, TOO_MANY),
    ],
)
def test_volume_trouble_is_more_than_the_factor_away_from_the_median(
    size: int, expected: VolumeTrouble | None
) -> None:
    assert trouble(size) is expected


@pytest.mark.parametrize(("size", "expected"), [(0, None), (30, None), (130, None), (131, TOO_MANY)])
def test_volume_trouble_needs_a_difference_above_the_floor(size: int, expected: VolumeTrouble | None) -> None:
    assert trouble(size, median=30.0) is expected


@pytest.mark.parametrize(
    ("cohorts", "size", "expected"),
    [
        (0, 10_000, None),
        (0, 10_001, TOO_MANY),
        (ENOUGH_HISTORY - 1, 0, None),
        (ENOUGH_HISTORY - 1, 9_000, None),
        (ENOUGH_HISTORY, 9_000, TOO_MANY),
    ],
)
def test_volume_trouble_without_enough_history_goes_by_its_own_limit(
    cohorts: int, size: int, expected: VolumeTrouble | None
) -> None:
    assert trouble(size, cohorts=cohorts, median=1000.0 if cohorts else None) is expected


@pytest.mark.parametrize(
    ("fresh_until", "expected"),
    [(None, NOT_FRESH), (WINDOW_END - timedelta(seconds=1), NOT_FRESH), (WINDOW_END, None)],
)
def test_volume_trouble_of_a_source_that_is_not_fresh(
    fresh_until: datetime | None, expected: VolumeTrouble | None
) -> None:
    assert trouble(1000, fresh_until=fresh_until, freshness="fresh.sql") is expected


def test_volume_trouble_does_not_ask_for_freshness_where_no_query_is_set() -> None:
    assert trouble(1000, fresh_until=None) is None
