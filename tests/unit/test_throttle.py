import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.throttle import (
    SCHEMA_FILE,
    Throttle,
    WarmUp,
    check_throttles_are_used,
    load_throttle,
    load_throttles,
    throttles_schema,
    write_throttles_schema,
)

WHOLE = """\
lifecycle_smtp:
  mails_per_second: 14
  mails_per_day: 50000
  timezone: Europe/Berlin
  connections: 8
  mails_per_connection: 100
  connection_age: 5 minutes
  warm_up:
    first_day: 2026-11-01
    mails_per_day: [50, 100, 500]
other.smtp:
  mails_per_second: 0.5
"""


def write_throttles(folder: Path, text: str) -> Path:
    (folder / "throttles.yaml").write_text(text)
    return folder


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        load_throttles(write_throttles(folder, text))
    return str(error.value)


def test_throttle_says_everything(tmp_path: Path) -> None:
    throttles = load_throttles(write_throttles(tmp_path, WHOLE))
    assert throttles == {
        "lifecycle_smtp": Throttle(
            mails_per_second=14.0,
            mails_per_day=50000,
            timezone="Europe/Berlin",
            connections=8,
            mails_per_connection=100,
            connection_age="5 minutes",  # type: ignore[arg-type]  # as the file says it
            warm_up=WarmUp(first_day=date(2026, 11, 1), mails_per_day=[50, 100, 500]),
        ),
        "other.smtp": Throttle(mails_per_second=0.5),
    }
    assert throttles["lifecycle_smtp"].connection_age == timedelta(minutes=5)


def test_no_file_and_a_connection_that_it_does_not_name_mean_no_throttle(tmp_path: Path) -> None:
    assert load_throttle(tmp_path, "lifecycle_smtp") is None
    write_throttles(tmp_path, WHOLE)
    assert load_throttle(tmp_path, "other.smtp") == Throttle(mails_per_second=0.5)
    assert load_throttle(tmp_path, "a_third") is None


def test_throttles_with_mistakes_say_each_with_its_line_and_what_to_write(tmp_path: Path) -> None:
    error = mistakes(
        tmp_path,
        "lifecycle_smtp:\n"
        "  mails_per_second: 0\n"
        "  mail_per_day: 100\n"
        "  timezone: Europe/Berlim\n"
        "  connection_age: 5\n"
        "idle:\n"
        "  timezone: UTC\n",
    )
    assert "throttles.yaml has 5 mistakes" in error
    assert "line 2, lifecycle_smtp.mails_per_second: should be greater than or equal to 0.001" in error
    assert "line 3, lifecycle_smtp.mail_per_day: is not a known field" in error
    assert (
        "line 4, lifecycle_smtp.timezone: is not the name of a time zone. Did you mean `Europe/Berlin`?"
        in error
    )
    assert "line 5, lifecycle_smtp.connection_age: is not a length of time. Write for example" in error
    assert "line 6, idle: limits nothing. Write for example `mails_per_second: 14`" in error


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("'a b': {mails_per_day: 1}", "is not the id of an Airflow connection"),
        ("a: {mails_per_day: 0}", "should be greater than or equal to 1"),
        ("a: {mails_per_day: 1.5}", "should be a valid integer"),
        ("a: {mails_per_second: fast}", "should be a valid number"),
        ("a: {mails_per_second: yes}", "line 1, a.mails_per_second: should be a valid number"),
        ("a: {mails_per_second: '14'}", "a.mails_per_second: should be a valid number"),
        ("a: {mails_per_second: .nan}", "a.mails_per_second: should be"),
        ("a: {mails_per_second: .inf}", "a.mails_per_second: should be"),
        ("a: {warm_up: {first_day: 1. November, mails_per_day: [1]}}", "first_day: should be a valid date"),
        ("a: {warm_up: {first_day: '2026-11-31', mails_per_day: [1]}}", "first_day: should be a valid date"),
        ("a: {warm_up: {first_day: 20261101, mails_per_day: [1]}}", "first_day: should be a valid date"),
        ("a: {warm_up: {first_day: yes, mails_per_day: [1]}}", "first_day: should be a valid date"),
        ("a: {warm_up: {first_day: 2026-11-01, mails_per_day: []}}", "at least 1 item"),
        ("a: {warm_up: {mails_per_day: [1]}}", "first_day: is missing"),
        ("a: {connection_age: 1 day}", "is not a length of time"),
    ],
)
def test_throttle_that_cannot_be_is_refused(tmp_path: Path, written: str, what: str) -> None:
    assert what in mistakes(tmp_path, written)


@pytest.mark.parametrize("written", ["2026-11-01", "'2026-11-01'", '"2026-11-01"'])
def test_first_day_may_stand_in_quotes(tmp_path: Path, written: str) -> None:
    folder = write_throttles(tmp_path, f"a: {{warm_up: {{first_day: {written}, mails_per_day: [1]}}}}")
    assert load_throttles(folder)["a"].warm_up == WarmUp(first_day=date(2026, 11, 1), mails_per_day=[1])


@pytest.mark.parametrize("written", ["14", "14.0", "0.5"])
def test_rate_may_be_written_whole_or_not(tmp_path: Path, written: str) -> None:
    folder = write_throttles(tmp_path, f"a: {{mails_per_second: {written}}}")
    assert load_throttles(folder)["a"].mails_per_second == float(written)


def test_throttle_of_a_connection_that_no_campaign_uses_is_a_mistake(tmp_path: Path) -> None:
    write_throttles(tmp_path, "lifecycle_smpt: {mails_per_second: 14}")
    with pytest.raises(ConfigurationError, match=r"lifecycle_smpt: no campaign .* mean `lifecycle_smtp`"):
        check_throttles_are_used(tmp_path, {"lifecycle_smtp"})
    check_throttles_are_used(tmp_path, {"lifecycle_smpt"})


def valid(throttles: Any) -> bool:
    """Whether the schema, as an editor applies it, accepts the file."""
    schema = json.loads(throttles_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(throttles))


def test_throttles_schema_accepts_what_the_model_accepts_and_refuses_the_rest(tmp_path: Path) -> None:
    whole = json.loads(json.dumps(yaml.safe_load(WHOLE), default=str))
    assert valid(whole)
    for change in ({"mails_per_day": 0}, {"speed": 1}, {"connection_age": "5"}, {"connections": "8"}):
        assert not valid({"lifecycle_smtp": {**whole["lifecycle_smtp"], **change}})
        assert mistakes(tmp_path, yaml.safe_dump({"a": change}))
    assert write_throttles_schema(tmp_path) == tmp_path / SCHEMA_FILE
    assert (tmp_path / SCHEMA_FILE).read_text() == throttles_schema()
