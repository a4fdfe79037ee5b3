from pathlib import Path

import pytest

from lifecycle_emails.daily_limit import DailyLimit, load_daily_limits
from lifecycle_emails.errors import ConfigurationError
from tests.integration.ledger.rows import make_campaign

CAMPAIGN = make_campaign(max_sends_per_day=500, timezone="Europe/Berlin")


def test_daily_limits_are_none_without_settings(tmp_path: Path) -> None:
    assert load_daily_limits(tmp_path, make_campaign()) == ()


def test_daily_limits_of_the_campaign_and_of_all(tmp_path: Path) -> None:
    (tmp_path / "lifecycle.yaml").write_text("max_sends_per_day: 9000\n")
    assert load_daily_limits(tmp_path, CAMPAIGN) == (
        DailyLimit(500, "Europe/Berlin", "day4_follow_up"),
        DailyLimit(9000, "UTC", None),
    )


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("max_sends_per_day: 0\n", "line 1, max_sends_per_day: should be greater than or equal to 1"),
        ("max_sends_per_day: many\n", "line 1, max_sends_per_day: should be a valid integer"),
        ("max_sends_a_day: 7\n", "line 1, max_sends_a_day: is not a known field. Did you mean `max_sends_per_day`?"),
        ("{}\n", "max_sends_per_day: is missing. Write for example `max_sends_per_day: 100000`"),
    ],
)  # fmt: skip
def test_daily_limits_with_a_mistake_say_where_and_what(tmp_path: Path, text: str, mistake: str) -> None:
    (tmp_path / "lifecycle.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as error:
        load_daily_limits(tmp_path, CAMPAIGN)
    assert mistake in str(error.value)
