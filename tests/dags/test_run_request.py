from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators.run_request import RunRequest, read_run_request
from tests.factories import make_campaign

NOW = datetime(2026, 5, 10, 6, 1, tzinfo=UTC)


def make_context(
    run_type: DagRunType, *, logical_date: datetime | None = None, **params: Any
) -> dict[str, Any]:
    """Make what a task's context says about its run; a logical date that is not there has no key, as in Airflow."""
    context: dict[str, Any] = {
        "dag_run": SimpleNamespace(run_type=run_type, dag_id="welcome", run_id="run_1"),
        "params": {"dry_run": False, "cohort_date": None, **params},
    }
    if logical_date is not None:
        context["logical_date"] = logical_date
    return context


def read(context: dict[str, Any], **campaign: Any) -> RunRequest:
    return read_run_request(context, make_campaign(**campaign), NOW)


def test_scheduled_run_takes_its_cohort_and_the_earlier_ones() -> None:
    context = make_context(DagRunType.SCHEDULED, logical_date=datetime(2026, 5, 10, 6, tzinfo=UTC))

    assert read(context) == RunRequest(
        date(2026, 5, 6), with_earlier=True, dry_run=False, run="welcome run_1"
    )


@pytest.mark.parametrize(
    "run_type",
    [DagRunType.MANUAL, DagRunType.BACKFILL, DagRunType.OPERATOR_TRIGGERED, DagRunType.ASSET_TRIGGERED],
)
def test_other_runs_take_their_own_cohort_only(run_type: DagRunType) -> None:
    request = read(make_context(run_type, logical_date=datetime(2026, 5, 9, 6, tzinfo=UTC)))

    assert (request.cohort_date, request.with_earlier) == (date(2026, 5, 5), False)


def test_logical_date_counts_in_the_campaigns_time_zone() -> None:
    context = make_context(DagRunType.SCHEDULED, logical_date=datetime(2026, 5, 9, 23, 30, tzinfo=UTC))

    assert read(context, timezone="Asia/Tokyo").cohort_date == date(2026, 5, 6)


def test_cohort_date_wins_over_the_logical_date_of_a_manual_run() -> None:
    context = make_context(DagRunType.MANUAL, logical_date=NOW, cohort_date="2026-05-01", dry_run=True)

    assert read(context) == RunRequest(
        date(2026, 5, 1), with_earlier=False, dry_run=True, run="welcome run_1"
    )


@pytest.mark.parametrize("run_type", [DagRunType.BACKFILL, DagRunType.SCHEDULED])
def test_cohort_date_is_refused_where_every_day_is_a_cohort_of_its_own(run_type: DagRunType) -> None:
    context = make_context(run_type, logical_date=NOW, cohort_date="2026-05-01")

    with pytest.raises(ConfigurationError, match=f"cannot be given to a {run_type.value} run"):
        read(context)


def test_manual_run_without_any_date_is_told_how_to_name_one() -> None:
    with pytest.raises(
        ConfigurationError, match=r"names no cohort. Trigger it again .* --conf '{\"cohort_date\""
    ):
        read(make_context(DagRunType.MANUAL))


def test_logical_date_in_the_future_is_refused() -> None:
    context = make_context(DagRunType.MANUAL, logical_date=datetime(2026, 5, 10, 7, tzinfo=UTC))

    with pytest.raises(ConfigurationError, match=r"2026-05-10T07:00:00\+00:00, is in the future"):
        read(context)


def test_logical_date_a_little_ahead_is_a_difference_of_clocks() -> None:
    context = make_context(DagRunType.SCHEDULED, logical_date=datetime(2026, 5, 10, 6, 2, tzinfo=UTC))

    assert read(context).cohort_date == date(2026, 5, 6)


def test_cohort_whose_turn_has_not_come_is_refused() -> None:
    context = make_context(DagRunType.MANUAL, cohort_date="2026-05-07")

    with pytest.raises(ConfigurationError, match=r"is not due before 2026-05-11: .* up to 2026-05-06"):
        read(context)


def test_cohort_date_that_is_no_date_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'1 May', which is not a date: write it as YYYY-MM-DD"):
        read(make_context(DagRunType.MANUAL, cohort_date="1 May"))


def test_cohort_date_years_ago_is_taken_for_a_slip() -> None:
    context = make_context(DagRunType.MANUAL, cohort_date="2016-05-01")

    with pytest.raises(ConfigurationError, match="Is the year of cohort_date right"):
        read(context)


@pytest.mark.parametrize("run_type", [DagRunType.MANUAL, DagRunType.BACKFILL])
def test_run_may_shorten_the_deadline(run_type: DagRunType) -> None:
    context = make_context(run_type, logical_date=NOW, max_lateness_days=2)

    assert read(context, max_lateness_days=3).max_lateness_days == 2


@pytest.mark.parametrize("days", [0, -1, True, "2", 1.5])
def test_deadline_that_is_no_number_of_days_is_refused(days: Any) -> None:
    with pytest.raises(ConfigurationError, match="whole number of days, from 1 to 3"):
        read(make_context(DagRunType.MANUAL, logical_date=NOW, max_lateness_days=days), max_lateness_days=3)


def test_run_that_lengthens_the_deadline_is_told_of_extend() -> None:
    context = make_context(DagRunType.BACKFILL, logical_date=NOW, max_lateness_days=4)

    with pytest.raises(
        ConfigurationError, match=r"can only shorten the deadline. .* lifecycle extend welcome --cohort-from"
    ) as error:
        read(context, max_lateness_days=3)
    assert "\n" not in str(error.value)
