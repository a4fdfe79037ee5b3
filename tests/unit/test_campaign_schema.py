import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lifecycle_emails.campaign import Campaign, campaign_ids
from lifecycle_emails.campaign_schema import SCHEMA_FILE, campaign_schema, write_campaign_schema
from tests.factories import CAMPAIGN_FIELDS, INCLUDE


def valid(fields: Any) -> bool:
    """Whether the schema, as an editor applies it, accepts ``fields``."""
    schema = json.loads(campaign_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(fields))


def test_campaign_schema_file_is_in_step_with_the_model() -> None:
    written = (INCLUDE / SCHEMA_FILE).read_text(encoding="utf-8")
    assert written == campaign_schema(), "run: python -m lifecycle_emails.campaign_schema include"


def test_campaign_schema_is_written_into_the_include_folder(tmp_path: Path) -> None:
    path = write_campaign_schema(tmp_path)
    assert path == tmp_path / SCHEMA_FILE
    assert path.read_text(encoding="utf-8") == campaign_schema()


@pytest.mark.parametrize("campaign_id", campaign_ids(INCLUDE))
def test_campaign_schema_accepts_the_examples_and_they_name_it(campaign_id: str) -> None:
    text = (INCLUDE / "campaigns" / f"{campaign_id}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../campaign.schema.json\n")
    assert valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "Welcome"},
        {"schedule": "0 24 * * *"},
        {"schedule": "*/5 * * * *"},
        {"offset_days": 0},
        {"offset_days": "4"},
        {"on_cap": "skip"},
        {"audience": "../users.sql"},
        {"sender": "hello@example.com"},
    ],
)
def test_campaign_schema_refuses_what_the_model_refuses(change: dict[str, Any]) -> None:
    assert valid(CAMPAIGN_FIELDS)
    fields = {**CAMPAIGN_FIELDS, **change}
    assert not valid(fields)
    with pytest.raises(ValueError, match="validation error"):
        Campaign.model_validate(fields)


def test_campaign_schema_describes_every_field() -> None:
    properties = json.loads(campaign_schema())["properties"]
    assert [name for name, field in properties.items() if not field.get("description")] == []
