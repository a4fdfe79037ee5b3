"""Daily limits: how many mails a campaign, and all campaigns together, may send on one calendar day.

Knows the campaign's field and the file ``lifecycle.yaml``, which is optional. Must not know how sends are
counted: that is the ledger's, which alone sees every campaign and every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.configuration_file import ConfigurationFile

SETTINGS_FILE = "lifecycle.yaml"
"""Name of the file in the include folder with what holds for all campaigns together."""


@dataclass(frozen=True)
class DailyLimit:
    """At most ``max_sends`` mails on one day of ``timezone``.

    ``campaign``: the id of the campaign whose mails count; None where those of all campaigns do.
    """

    max_sends: int
    timezone: str
    campaign: str | None

    def __str__(self) -> str:
        """For people, as ``day4_follow_up: 1000 a day (UTC)``."""
        return f"{self.campaign or 'all campaigns'}: {self.max_sends} a day ({self.timezone})"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_sends_per_day: int = Field(ge=1, le=1_000_000_000, examples=[100_000])


def load_daily_limits(include_dir: Path, campaign: Campaign) -> tuple[DailyLimit, ...]:
    """Return the limits that ``campaign`` must keep, its own first; most installations have none.

    A campaign's day is one of its own time zone, the day of all campaigns is one of UTC. Raises
    ConfigurationError when ``include_dir/lifecycle.yaml`` has a mistake; it may be absent.
    """
    limits = []
    if campaign.max_sends_per_day is not None:
        limits.append(DailyLimit(campaign.max_sends_per_day, campaign.timezone, campaign.id))
    path = include_dir / SETTINGS_FILE
    if path.exists():
        overall = ConfigurationFile.read(path, include_dir).validate(_Settings)
        limits.append(DailyLimit(overall.max_sends_per_day, "UTC", None))
    return tuple(limits)
