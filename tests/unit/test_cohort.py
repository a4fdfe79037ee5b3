from datetime import UTC, date, datetime, timedelta

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle_emails.cohort import Cohort, cohort_date_of, natural_cohort, nominal_tick
from tests.factories import make_campaign

# Half-hour and quarter-hour offsets, clock changes at midnight, just before and just after it, days that are
# skipped or came twice, changes of half an hour, of two hours, and of the standard time.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/Asuncion",
    "America/Santiago",
    "America/St_Johns",
    "America/Nuuk",
    "America/Scoresbysund",
    "America/Caracas",
    "Antarctica/Troll",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def window(timezone: str, day: str) -> tuple[datetime, datetime]:
    cohort = natural_cohort(make_campaign(timezone=timezone), date.fromisoformat(day))
    return cohort.window_start, cohort.window_end


def test_cohort_is_a_day_in_the_campaigns_zone() -> None:
    campaign = make_campaign(timezone="Asia/Tokyo", offset_days=4, max_lateness_days=3, schedule="30 6 * * *")
    assert natural_cohort(campaign, date(2026, 5, 1)) == Cohort(
        campaign="welcome",
        cohort_date=date(2026, 5, 1),
        window_start=instant("2026-04-30T15:00Z"),
        window_end=instant("2026-05-01T15:00Z"),
        timezone="Asia/Tokyo",
        offset_days=4,
        not_after=instant("2026-05-07T21:30Z"),
    )


@pytest.mark.parametrize(
    ("timezone", "day", "start", "end"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30Z", "2026-10-04T13:00Z"),  # 23.5 hours
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),  # starts at 01:00
        ("America/Havana", "2024-11-03", "2024-11-03T04:00Z", "2024-11-04T05:00Z"),  # midnight comes twice
        ("America/Nuuk", "2024-03-31", "2024-03-31T01:00Z", "2024-04-01T01:00Z"),  # 23:00 jumps to 00:00
        ("America/Toronto", "1919-03-31", "1919-03-31T04:30Z", "1919-04-01T04:00Z"),  # 23:30 jumps to 00:30
        ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00Z", "2011-12-30T10:00Z"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00Z", "2011-12-30T10:00Z"),  # there was no such day
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("UTC", "2028-02-29", "2028-02-29T00:00Z", "2028-03-01T00:00Z"),
    ],
)
def test_cohort_window_follows_the_clock_changes(timezone: str, day: str, start: str, end: str) -> None:
    assert window(timezone, day) == (instant(start), instant(end))


@given(zone=st.sampled_from(sorted(pendulum.timezones())), day=st.dates(date(1970, 1, 1), date(2037, 12, 30)))
@settings(max_examples=500, deadline=None)
def test_cohort_windows_touch_and_hold_their_own_day(zone: str, day: date) -> None:
    campaign = make_campaign(timezone="UTC").model_copy(update={"timezone": zone})
    cohort = natural_cohort(campaign, day)
    following = natural_cohort(campaign, day + timedelta(days=1))
    assert cohort.window_end == following.window_start
    assert cohort.window_start <= cohort.window_end
    assert cohort.window_start.utcoffset() == timedelta(0)
    tz = pendulum.timezone(zone)
    assert cohort.window_start.astimezone(tz).date() >= day
    assert (cohort.window_start - timedelta(microseconds=1)).astimezone(tz).date() < day
    if cohort.window_start < cohort.window_end:
        assert cohort.window_start.astimezone(tz).date() == day


@pytest.mark.parametrize("zone", ZONES)
def test_cohort_windows_cover_the_years_without_gap_or_overlap(zone: str) -> None:
    campaign = make_campaign(timezone=zone)
    end = natural_cohort(campaign, date(2005, 12, 31)).window_end
    hours = set()
    for number in range((date(2031, 1, 1) - date(2006, 1, 1)).days):
        cohort = natural_cohort(campaign, date(2006, 1, 1) + timedelta(days=number))
        assert cohort.window_start == end
        hours.add((cohort.window_end - cohort.window_start) / timedelta(hours=1))
        end = cohort.window_end
    assert end == natural_cohort(campaign, date(2031, 1, 1)).window_start
    assert hours <= {0, 22, 23, 23.5, 24, 24.5, 25, 26}


def test_cohort_date_is_the_runs_date_in_the_zone_less_the_offset() -> None:
    campaign = make_campaign(timezone="America/New_York", offset_days=4)
    assert cohort_date_of(campaign, instant("2026-05-05T03:59:59Z")) == date(2026, 4, 30)
    assert cohort_date_of(campaign, instant("2026-05-05T04:00Z")) == date(2026, 5, 1)
    assert cohort_date_of(campaign, instant("2028-03-04T12:00-05:00")) == date(2028, 2, 29)


def test_cohort_date_is_a_plain_date_for_airflows_datetimes() -> None:
    found = cohort_date_of(make_campaign(), pendulum.datetime(2026, 5, 5, 6, tz="Europe/Berlin"))
    assert type(found) is date


def test_cohort_date_of_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        cohort_date_of(make_campaign(), datetime(2026, 5, 5, 6))  # noqa: DTZ001 (that is what is refused)


@pytest.mark.parametrize(
    ("timezone", "schedule", "day", "tick"),
    [
        ("UTC", "0 6 * * *", "2026-05-01", "2026-05-05T06:00Z"),
        ("Europe/Berlin", "0 6 * * *", "2026-03-24", "2026-03-28T05:00Z"),
        ("Europe/Berlin", "0 6 * * *", "2026-03-25", "2026-03-29T04:00Z"),
        ("Europe/Berlin", "30 2 * * *", "2026-03-25", "2026-03-29T01:30Z"),  # skipped: 03:30 it is
        ("Europe/Berlin", "30 2 * * *", "2026-10-21", "2026-10-25T01:30Z"),  # twice: the second
        ("UTC", "0 6 * * *", "2028-02-25", "2028-02-29T06:00Z"),
    ],
)
def test_nominal_tick_is_the_schedule_on_the_day_of_the_offset(
    timezone: str, schedule: str, day: str, tick: str
) -> None:
    campaign = make_campaign(timezone=timezone, schedule=schedule)
    found = nominal_tick(campaign, date.fromisoformat(day))
    assert found == instant(tick)
    assert found.tzinfo is UTC


def test_deadline_counts_calendar_days_over_a_clock_change() -> None:
    campaign = make_campaign(timezone="Europe/Berlin", max_lateness_days=3)
    cohort = natural_cohort(campaign, date(2026, 3, 23))  # ticks on the 27th; clocks change on the 29th
    assert nominal_tick(campaign, cohort.cohort_date) == instant("2026-03-27T05:00Z")
    assert cohort.not_after == instant("2026-03-30T04:00Z")


@pytest.mark.parametrize("zone", ZONES)
def test_nominal_tick_leads_back_to_its_cohort(zone: str) -> None:
    campaign = make_campaign(timezone=zone, schedule="0 6 * * *")
    days = [date(2012, 1, 1) + timedelta(days=number) for number in range(4000)]
    assert [cohort_date_of(campaign, nominal_tick(campaign, day)) for day in days] == days
