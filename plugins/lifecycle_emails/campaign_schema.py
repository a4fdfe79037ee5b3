"""The JSON schema of campaign files, by which editors complete and check them while they are written.

Generated from the model of a campaign by ``python -m lifecycle_emails.campaign_schema include``. Knows the
model and the schema's file; a test holds the two in step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lifecycle_emails.campaign import Campaign

SCHEMA_FILE = "campaign.schema.json"
"""Name of the schema's file in the include folder."""


def campaign_schema() -> str:
    """Return the text of the schema's file, JSON Schema 2020-12."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Campaign.model_json_schema(by_alias=True),
        "title": "Lifecycle e-mail campaign",
        "description": "One lifecycle e-mail: whom it goes to, when, and within which limits.",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_campaign_schema(include_dir: Path) -> Path:
    """Write the schema into ``include_dir`` and return its path."""
    path = include_dir / SCHEMA_FILE
    path.write_text(campaign_schema(), encoding="utf-8")
    return path


if __name__ == "__main__":
    write_campaign_schema(Path(sys.argv[1] if len(sys.argv) > 1 else "include"))
