"""The throttle of an SMTP connection: how fast, and over how many connections, its provider takes mail.

Knows the file ``throttles.yaml`` and what a throttle says. Must not know how grants are counted: that is the
ledger's, which alone sees every task of every campaign. A connection that the file does not name, or no file
at all, means no throttle.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from lifecycle_emails.configuration_file import ConfigurationFile, checked_timezone, did_you_mean, shown_name
from lifecycle_emails.errors import ConfigurationError

SCHEMA_FILE = "throttles.schema.json"
"""Name of the JSON schema in the include folder, made by ``python -m lifecycle_emails.throttle include``."""

_AGE = r"[1-9][0-9]{0,5} (second|minute|hour)s?"
_CONNECTION_ID = r"[\w.-]{1,200}"


def _read_age(written: Any) -> timedelta:
    match = re.fullmatch(_AGE, written) if isinstance(written, str) else None
    if match is None:
        raise ValueError("is not a length of time. Write for example `connection_age: 5 minutes`.")
    number, unit = written.rstrip("s").split()
    return timedelta(**{f"{unit}s": int(number)})


def _read_day(written: Any) -> Any:
    """Take a day in quotes as well: YAML makes a date only of one without."""
    if isinstance(written, str):
        with suppress(ValueError):
            return date.fromisoformat(written)
    return written


def _check_connection_id(name: str) -> str:
    if not re.fullmatch(_CONNECTION_ID, name):
        raise ValueError("is not the id of an Airflow connection. Write letters, digits, `_`, `-` and `.`.")
    return name


_Age = Annotated[timedelta, BeforeValidator(_read_age, json_schema_input_type=str)]


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_DayMaximum = Annotated[int, Field(ge=1, le=100_000_000)]


class WarmUp(_Written):
    """A daily maximum that grows: for a provider, a domain or an address that nobody knows yet."""

    first_day: Annotated[date, BeforeValidator(_read_day)] = Field(
        description="The day of the first maximum; it holds before that day too."
    )
    mails_per_day: list[_DayMaximum] = Field(
        min_length=1,
        max_length=366,
        description="The maximum of the first day, the second, and so on; afterwards `mails_per_day` alone.",
    )


class Throttle(_Written):
    """What one SMTP connection's provider takes. What is left out is not limited."""

    mails_per_second: float | None = Field(
        default=None,
        ge=0.001,
        le=10_000,
        description="Mails per second, of all campaigns and tasks together.",
    )
    mails_per_day: _DayMaximum | None = Field(
        default=None, description="Mails of one calendar day in `timezone`; the rest waits for a later run."
    )
    timezone: Annotated[str, AfterValidator(checked_timezone)] = Field(
        default="UTC", description="Time zone of the days of `mails_per_day` and `warm_up`."
    )
    connections: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="SMTP connections at once, of all tasks on all workers together.",
    )
    mails_per_connection: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="After so many mails a connection is closed and opened anew.",
    )
    connection_age: _Age | None = Field(
        default=None,
        description="After this time a connection is closed and opened anew, between two mails.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": f"^{_AGE}$"}, {"type": "null"}]},
    )
    warm_up: WarmUp | None = Field(default=None, description="A daily maximum by day, since a first day.")

    @model_validator(mode="after")
    def _limits_something(self) -> Throttle:
        limits = self.model_dump(exclude={"timezone"}, exclude_none=True)
        if not limits:
            raise ValueError("limits nothing. Write for example `mails_per_second: 14`, or remove it.")
        return self


class _Throttles(RootModel[dict[Annotated[str, AfterValidator(_check_connection_id)], Throttle]]):
    """What stands in ``throttles.yaml``: throttles by the id of their SMTP connection."""


def load_throttles(include_dir: Path) -> Mapping[str, Throttle]:
    """Throttles of ``include_dir/throttles.yaml`` by SMTP connection id; empty where there is no such file.

    Raises ConfigurationError that lists each mistake of the file.
    """
    path = _path(include_dir)
    if not path.exists():
        return {}
    return ConfigurationFile.read(path, include_dir).validate(_Throttles).root


def load_throttle(include_dir: Path, smtp_conn_id: str) -> Throttle | None:
    """The throttle of one SMTP connection, None where it has none. Raises ConfigurationError."""
    return load_throttles(include_dir).get(smtp_conn_id)


def check_throttles_are_used(include_dir: Path, smtp_conn_ids: set[str]) -> None:
    """Raise ConfigurationError for a throttle of a connection that no campaign uses: it limits nothing."""
    for name in load_throttles(include_dir):
        if name not in smtp_conn_ids:
            file = shown_name(_path(include_dir), include_dir)
            raise ConfigurationError(
                f"{file}: {name}: no campaign has this smtp_conn_id, so it limits nothing."
                f" {did_you_mean(name, sorted(smtp_conn_ids))}"
            )


def throttles_schema() -> str:
    """Return the text of the schema's file, JSON Schema 2020-12."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_Throttles.model_json_schema(),
        "title": "Throttles of lifecycle e-mail",
        "description": "What each SMTP connection's provider takes, by the connection's id.",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_throttles_schema(include_dir: Path) -> Path:
    """Write the schema into ``include_dir`` and return its path."""
    path = include_dir / SCHEMA_FILE
    path.write_text(throttles_schema(), encoding="utf-8")
    return path


def _path(include_dir: Path) -> Path:
    return include_dir / "throttles.yaml"


if __name__ == "__main__":
    write_throttles_schema(Path(sys.argv[1] if len(sys.argv) > 1 else "include"))
