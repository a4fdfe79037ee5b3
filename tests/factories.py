"""Make the values that tests work on: valid by default, with only what a test is about written out."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from lifecycle_emails.campaign import Campaign

INCLUDE = Path(__file__).parent.parent / "include"
"""The repository's own include folder: the example campaigns."""

CAMPAIGN_FIELDS: dict[str, Any] = {
    "id": "welcome",
    "schedule": "0 6 * * *",
    "timezone": "UTC",
    "offset_days": 4,
    "audience": "users.sql",
    "from": "The team <hello@example.com>",
}
"""The least that a campaign file must say."""


def make_campaign(**changes: Any) -> Campaign:
    """Return a campaign of CAMPAIGN_FIELDS but for ``changes`` (``from`` is a keyword: ``sender``)."""
    if "sender" in changes:
        changes["from"] = changes.pop("sender")
    return Campaign.model_validate({**CAMPAIGN_FIELDS, **changes})


class IncludeFolder:
    """An include folder of a test's own, complete and without mistakes, for the test to write into."""

    def __init__(self, root: Path) -> None:
        self.path = root / "include"
        shutil.copytree(INCLUDE, self.path, ignore=shutil.ignore_patterns("*.json"))
        self.write_campaign()
        self.write("audiences/users.sql", AUDIENCE)
        self.write("templates/welcome/subject.txt.j2", "Hello {{ full_name }}")
        self.write("templates/welcome/body.txt.j2", "Hello {{ full_name }},\nyour id is {{ user_id }}.\n")
        self.write(
            "templates/welcome/body.html.j2", "<p>Hello {{ full_name }}, your id is {{ user_id }}.</p>\n"
        )

    def write(self, name: str, text: str) -> None:
        """Write the file ``name`` of the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_campaign(self, **changes: Any) -> None:
        """Write campaigns/welcome.yaml: CAMPAIGN_FIELDS but for ``changes``, without what is None."""
        fields = {**CAMPAIGN_FIELDS, **changes}
        said = {name: value for name, value in fields.items() if value is not None}
        self.write("campaigns/welcome.yaml", yaml.safe_dump(said, sort_keys=False))


AUDIENCE = """\
SELECT user_id, email, full_name FROM users
WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s
"""
