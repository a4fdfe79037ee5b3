"""The rules of the frequency cap: how many sends a user may get in a rolling window, over all campaigns.

Knows the file ``frequency_caps.yaml`` and what a rule says. Must not know how sends are counted: that is the
ledger's, which alone sees every campaign and every run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from lifecycle_emails.configuration_file import ConfigurationFile, did_you_mean, shown_name
from lifecycle_emails.errors import ConfigurationError

_WINDOW = re.compile(r"([1-9]\d{0,5}) (minute|hour|day|week)s?")
_LONGEST_WINDOW = timedelta(days=366)
_RULE_NAME = re.compile(r"[a-z][a-z0-9_]{2,62}")


@dataclass(frozen=True)
class CapRule:
    """At most ``max_sends`` sends to one user within any ``window``, whatever the campaigns."""

    name: str
    max_sends: int
    window: timedelta


def load_cap_rules(include_dir: Path, name: str) -> tuple[CapRule, ...]:
    """Rules of the set ``name`` in ``include_dir/frequency_caps.yaml``, in the order of the file.

    Raises ConfigurationError when the file has a mistake or no such set.
    """
    rule_sets = load_cap_rule_sets(include_dir)
    if name not in rule_sets:
        file = shown_name(_path(include_dir), include_dir)
        raise ConfigurationError(f"{file} has no rule set `{name}`. {did_you_mean(name, list(rule_sets))}")
    return rule_sets[name]


def load_cap_rule_sets(include_dir: Path) -> dict[str, tuple[CapRule, ...]]:
    """Every rule set of ``include_dir/frequency_caps.yaml`` by name.

    Raises ConfigurationError that lists each mistake of the file.
    """
    written = ConfigurationFile.read(_path(include_dir), include_dir).validate(_RuleSets)
    return {
        name: tuple(CapRule(rule, says.max_sends, says.window) for rule, says in rules.items())
        for name, rules in written.root.items()
    }


def _path(include_dir: Path) -> Path:
    return include_dir / "frequency_caps.yaml"


def _read_window(written: Any) -> timedelta:
    """Length of a window such as ``7 days``; a day is 24 hours, since the window rolls over clock changes."""
    match = _WINDOW.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError("is not a length of time. Write for example `window: 7 days` or `window: 20 hours`.")
    window = timedelta(**{f"{match[2]}s": int(match[1])})
    if window > _LONGEST_WINDOW:
        raise ValueError("is longer than 366 days. Write a shorter window.")
    return window


def _check_name(name: str) -> str:
    if not _RULE_NAME.fullmatch(name):
        raise ValueError("is not a usable name. Write 3 to 63 of a-z, 0-9 and _, a letter first.")
    return name


def _check_rules(rules: dict[str, _WrittenRule]) -> dict[str, _WrittenRule]:
    if not rules:
        raise ValueError("holds no rules, so it would limit nothing. Write at least one.")
    return rules


class _WrittenRule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_sends: int = Field(ge=1, le=1000)
    window: Annotated[timedelta, BeforeValidator(_read_window)]


_Name = Annotated[str, AfterValidator(_check_name)]
_Rules = Annotated[dict[_Name, _WrittenRule], AfterValidator(_check_rules)]


class _RuleSets(RootModel[dict[_Name, _Rules]]):
    """What stands in ``frequency_caps.yaml``: rule sets by name, in each of them rules by name."""
