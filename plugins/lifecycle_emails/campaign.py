"""What a campaign is: one YAML file that says whom it mails, when, with which text and within which limits.

Knows the file's fields and the folders beside it. Must not know databases, Airflow, or how mail is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from lifecycle_emails.address import parse_mailbox
from lifecycle_emails.configuration_file import (
    ConfigurationFile,
    FieldPath,
    Mistake,
    checked_timezone,
    did_you_mean,
    shown_name,
)
from lifecycle_emails.errors import ConfigurationError, InvalidAddress
from lifecycle_emails.frequency_cap import load_cap_rule_sets

TEMPLATE_FILES = ("subject.txt.j2", "body.html.j2", "body.txt.j2")
"""The files of a template folder."""

RESERVED_VARIABLES = ("campaign", "list_unsubscribe")
"""Template variables that every message has; an audience must not return columns of these names."""

_ID = r"[a-z][a-z0-9_]{2,62}"
_FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_EXAMPLE_MAILBOX = "The team <hello@example.com>"
_SCHEDULE = r"[0-5]?[0-9] ([01]?[0-9]|2[0-3]) \* \* \*"


def _check_schedule(schedule: str) -> str:
    if not re.fullmatch(_SCHEDULE, schedule):
        raise ValueError(
            "does not fire once per calendar day. Write `M H * * *` in numbers, such as `0 6 * * *`"
        )
    return schedule


def _check_mailbox(text: str) -> str:
    try:
        parse_mailbox(text)
    except InvalidAddress as invalid:
        raise ValueError(
            f'must be one mailbox (RFC 5322 3.4), but {invalid}. Write for example `"{_EXAMPLE_MAILBOX}"`'
        ) from None
    return text


def _check_unsubscribe(text: str) -> str:
    if not text.startswith(("mailto:", "https://", "{{", "{%")):
        raise ValueError(
            "is neither a mailto: nor an https: address. Write for example "
            '`"mailto:unsubscribe@example.com?subject={{ user_id }}"`'
        )
    return text


def _fits(pattern: str, otherwise: str) -> AfterValidator:
    """Return a check that a text fits ``pattern``; ``otherwise`` says what is wrong and what to write."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(otherwise)
        return text

    return AfterValidator(check)


_Id = Annotated[
    str,
    _fits(_ID, "is not a usable id. Write 3 to 63 of a-z, 0-9 and _, a letter first"),
    Field(json_schema_extra={"pattern": f"^{_ID}$"}),
]
_FileName = Annotated[
    str,
    _fits(_FILE_NAME, "is not a file name. Write letters, digits, `_`, `-` and `.`, with no folder"),
    Field(json_schema_extra={"pattern": f"^{_FILE_NAME}$"}),
]
_ConnectionId = Annotated[
    str,
    _fits(
        r"[\w.-]{1,200}", "is not the id of an Airflow connection. Write letters, digits, `_`, `-` and `.`"
    ),
]
_Schedule = Annotated[
    str, AfterValidator(_check_schedule), Field(json_schema_extra={"pattern": f"^{_SCHEDULE}$"})
]
_Timezone = Annotated[str, AfterValidator(checked_timezone)]
_Mailbox = Annotated[str, AfterValidator(_check_mailbox)]
_Unsubscribe = Annotated[str, AfterValidator(_check_unsubscribe)]
_FeedbackId = Annotated[
    str,
    _fits(r"[!-~]{1,127}", "must be ASCII without spaces. Write for example `day4:lifecycle:example`"),
]
_Tags = Annotated[tuple[str, ...], Strict(False)]
_UserName = Annotated[
    str,
    _fits(r"\S{1,200}", "is not an Airflow user id. Write it as Airflow lists it, without spaces"),
]


class VolumeBreaker(BaseModel):
    """When a cohort is of so unusual a size that a person decides whether it goes out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    factor: float = Field(
        default=3,
        gt=1,
        le=1000,
        description="A cohort awaits approval when it is more than so many times larger or smaller than the "
        "median of the campaign's cohorts of the last four weeks.",
        examples=[3],
    )
    floor: int = Field(
        default=100,
        ge=0,
        description="A cohort that differs from the median by no more users than this goes out.",
        examples=[100],
    )
    without_history: int = Field(
        default=10_000,
        ge=0,
        description="Most users of a cohort that goes out by itself while the last four weeks have fewer "
        "than five cohorts to compare it with.",
        examples=[10_000],
    )
    freshness: _FileName | None = Field(
        default=None,
        description="File in include/audiences with an SQL query that returns one time: up to when the "
        "source's data are complete. A cohort whose day ends later awaits approval, or fresher data.",
        examples=["users_complete_until.sql"],
    )
    approvers: Annotated[tuple[_UserName, ...], Strict(False)] = Field(
        default=(),
        description="Ids of the Airflow users who may approve. Left out, everybody may whom Airflow lets "
        "answer.",
        examples=[["ada"]],
    )
    approve_within_hours: float = Field(
        default=12,
        gt=0,
        lt=24,
        description="Hours after which a cohort that nobody has decided on is refused. Less than a day, "
        "since tomorrow's run waits for today's.",
        examples=[12],
    )


def _read_volume(written: Any) -> Any:
    """YAML 1.1 reads ``off`` as false, YAML 1.2 as a word."""
    if written is None or written is True:
        raise ValueError("says nothing. Leave it out for the defaults, or write `volume: off`")
    return None if written is False or written == "off" else written


def _allow_off(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [
        {"enum": ["off", False]} if kind == {"type": "null"} else kind for kind in schema["anyOf"]
    ]


class Campaign(BaseModel):
    """One lifecycle e-mail: whom it goes to, when, and within which limits.

    Build it by `load_campaign`, which checks the files that it names as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: _Id = Field(
        description="Name of the campaign, of its file and of its DAG. Never change it: it is part of what "
        "makes a send unique.",
        examples=["day4_follow_up"],
    )
    description: str = Field(default="", description="What the mail is for, in a sentence, for people.")
    schedule: _Schedule = Field(
        description="When the campaign runs: `M H * * *`, once per calendar day in `timezone`.",
        examples=["0 6 * * *"],
    )
    timezone: _Timezone = Field(
        description="Time zone of the schedule and of the days on which users were created.",
        examples=["UTC"],
    )
    offset_days: int = Field(
        ge=1, le=3650, description="Days between a user's creation and the mail.", examples=[4]
    )
    audience: _FileName = Field(
        description="File in include/audiences with the SQL query that returns the users.",
        examples=["users_created_between.sql"],
    )
    template: _FileName = Field(
        default_factory=lambda valid: str(valid.get("id", "")),
        description="Folder in include/templates with the mail's text. Left out, it is the campaign's id.",
        examples=["day4_follow_up"],
    )
    sender: _Mailbox = Field(
        alias="from", description="The mailbox that the mail comes from.", examples=[_EXAMPLE_MAILBOX]
    )
    reply_to: _Mailbox | None = Field(
        default=None,
        description="The mailbox for replies, where it is not `from`.",
        examples=["help@example.com"],
    )
    frequency_cap: str = Field(
        default="default",
        description="Rule set in include/frequency_caps.yaml that limits how often one user is mailed.",
        examples=["default"],
    )
    on_cap: Literal["defer", "drop"] = Field(
        default="defer",
        description="What becomes of a user over the cap: judged again by later runs until the deadline, or "
        "left out for good.",
        examples=["defer"],
    )
    max_lateness_days: int = Field(
        default=3,
        ge=1,
        le=3650,
        description="Calendar days after its scheduled run during which a cohort may still be mailed.",
        examples=[3],
    )
    max_sends_per_day: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Most mails of this campaign on one day of `timezone`, over all runs and backfills. The "
        "others are held, and judged again until their deadline. Left out, there is no limit.",
        examples=[10_000],
    )
    volume: Annotated[VolumeBreaker | None, BeforeValidator(_read_volume)] = Field(
        default=VolumeBreaker(),
        description="When a cohort of unusual size awaits a person's approval; `off`: never.",
        examples=[{"factor": 3, "floor": 100}],
        json_schema_extra=_allow_off,
    )
    batch_size: int = Field(
        default=500, ge=1, le=10_000, description="Users that one send task takes at a time.", examples=[500]
    )
    connections: int = Field(
        default=8, ge=1, le=256, description="SMTP connections of one send task.", examples=[8]
    )
    list_unsubscribe: _Unsubscribe | None = Field(
        default=None,
        description="mailto: or https: address for the List-Unsubscribe header, with the user's template "
        "variables. An https: address must unsubscribe by one POST (RFC 8058).",
        examples=["mailto:unsubscribe@example.com?subject={{ user_id }}"],
    )
    feedback_id: _FeedbackId | None = Field(
        default=None,
        description="Feedback-ID header, by which mailbox providers report complaints.",
        examples=["day4:lifecycle:example"],
    )
    source_timezone: _Timezone = Field(
        default="UTC",
        description="Time zone of the source's timestamps without time zone.",
        examples=["UTC"],
    )
    source_conn_id: _ConnectionId = Field(
        default="lifecycle_source",
        description="Airflow connection of the Postgres database with the users.",
        examples=["lifecycle_source"],
    )
    smtp_conn_id: _ConnectionId = Field(
        default="lifecycle_smtp",
        description="Airflow connection of the SMTP server.",
        examples=["lifecycle_smtp"],
    )
    owner: str = Field(
        default="lifecycle",
        min_length=1,
        description="Owner of the DAG, as Airflow shows it.",
        examples=["growth"],
    )
    tags: _Tags = Field(default=(), description="Further tags of the DAG.", examples=[["growth"]])

    @property
    def time_of_day(self) -> time:
        """When the schedule fires, on the clocks of ``timezone``."""
        minute, hour = self.schedule.split()[:2]
        return time(int(hour), int(minute))


def campaign_ids(include_dir: Path) -> tuple[str, ...]:
    """Return the ids of all campaigns in ``include_dir/campaigns``, in order, by their files' names."""
    return tuple(sorted(path.stem for path in (include_dir / "campaigns").glob("*.yaml")))


def load_campaign(include_dir: Path, campaign_id: str) -> Campaign:
    """Read ``include_dir/campaigns/<campaign_id>.yaml`` and check it, with the files that it names.

    Raises ConfigurationError that lists every mistake: file, line, field, what is wrong, what to write.
    """
    if not re.fullmatch(_ID, campaign_id):
        ids = campaign_ids(include_dir)
        raise ConfigurationError(f"`{campaign_id}` is no campaign id. {did_you_mean(campaign_id, ids)}")
    file = ConfigurationFile.read(include_dir / "campaigns" / f"{campaign_id}.yaml", include_dir)
    return file.validate(Campaign, further=_mistakes_beside(file, include_dir, campaign_id))


def _mistakes_beside(file: ConfigurationFile, include_dir: Path, campaign_id: str) -> Iterator[Mistake]:
    """Yield what no single field can tell: names that do not agree, or name nothing."""
    values = file.values
    if isinstance(values.get("id"), str) and values["id"] != campaign_id:
        yield Mistake(
            ("id",), f"differs from the file's name, {campaign_id}.yaml", f"Write `id: {campaign_id}`."
        )
    yield from _query_mistakes(("audience",), values.get("audience"), include_dir)
    volume = values.get("volume")
    if isinstance(volume, dict):
        yield from _query_mistakes(("volume", "freshness"), volume.get("freshness"), include_dir)
    yield from _template_mistakes(values.get("template", campaign_id), include_dir)
    yield from _cap_mistakes(values.get("frequency_cap", "default"), include_dir)


def _query_mistakes(field: FieldPath, query: object, include_dir: Path) -> Iterator[Mistake]:
    if _is_file_name(query) and not (include_dir / "audiences" / query).is_file():
        known = sorted(path.name for path in (include_dir / "audiences").glob("*.sql"))
        missing = shown_name(include_dir / "audiences" / query, include_dir)
        yield Mistake(field, f"there is no file {missing}", did_you_mean(query, known))


def _template_mistakes(template: object, include_dir: Path) -> Iterator[Mistake]:
    if not _is_file_name(template):
        return
    folder = include_dir / "templates" / template
    shown = shown_name(folder, include_dir)
    if not folder.is_dir():
        known = sorted(path.name for path in (include_dir / "templates").glob("*/"))
        yield Mistake(("template",), f"there is no folder {shown}", did_you_mean(template, known))
        return
    for name in TEMPLATE_FILES:
        if not (folder / name).is_file():
            yield Mistake(("template",), f"{shown} has no file {name}", "Add it.")


def _cap_mistakes(rule_set: object, include_dir: Path) -> Iterator[Mistake]:
    if not isinstance(rule_set, str):
        return
    try:
        known = load_cap_rule_sets(include_dir)
    except ConfigurationError as error:
        yield Mistake(("frequency_cap",), f"its rules cannot be read: {error}")
        return
    if rule_set not in known:
        what = "is no rule set of include/frequency_caps.yaml"
        yield Mistake(("frequency_cap",), what, did_you_mean(rule_set, list(known)))


def _is_file_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(_FILE_NAME, value) is not None
