"""Read one YAML file into a pydantic model, and say everything that is wrong with it at once.

Every mistake names file, line, field, what is wrong and what to write instead. Values are not repeated: one
may be an address. Knows YAML and pydantic; must not know what a campaign or a frequency cap is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pendulum
import pydantic
import yaml

from lifecycle_emails.errors import ConfigurationError

Model = TypeVar("Model", bound=pydantic.BaseModel)
FieldPath = tuple[str, ...]

_MACHINE_ZONES = frozenset({"localtime", "posixrules", "Factory"})


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in a configuration file: where, what, and what to write instead."""

    field: FieldPath
    what: str
    instead: str = ""


@dataclass(frozen=True)
class ConfigurationFile:
    """A YAML file's mapping, with the line (from 1) on which each field stands."""

    name: str
    values: Mapping[str, Any]
    lines: Mapping[FieldPath, int]

    @classmethod
    def read(cls, path: Path, include_dir: Path) -> ConfigurationFile:
        """Read ``path``; its name in messages is relative to the folder that holds ``include_dir``.

        Raises ConfigurationError when the file is missing, is not UTF-8 or YAML, or says a field twice.
        """
        name = shown_name(path, include_dir)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ConfigurationError(_absent(path, name)) from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{name} is not UTF-8 text; save it as UTF-8.") from None
        node, values = _parse(text, name)
        if not isinstance(node, yaml.MappingNode):
            raise ConfigurationError(f"{name} holds no fields; write one `field: value` a line.")
        lines: dict[FieldPath, int] = {}
        twice = list(_number_lines(node, (), lines))
        if twice:
            raise mistakes_error(name, twice, lines)
        return cls(name, {str(key): value for key, value in values.items()}, lines)

    def validate(self, model: type[Model], further: Iterable[Mistake] = ()) -> Model:
        """Build a ``model`` from the file's values.

        ``further`` are mistakes found beside the model's own. Raises ConfigurationError, which lists all.
        """
        result: Model | None = None
        mistakes: list[Mistake] = []
        try:
            result = model.model_validate(dict(self.values))
        except pydantic.ValidationError as invalid:
            errors = invalid.errors(include_url=False, include_input=False)
            mistakes = [_as_mistake(model, error) for error in errors]
        mistakes.extend(further)
        if result is None or mistakes:
            raise mistakes_error(self.name, mistakes, self.lines) from None
        return result


def shown_name(path: Path, include_dir: Path) -> str:
    """Name ``path`` for messages: relative to the folder that holds ``include_dir``, no machine's path."""
    return f"{include_dir.name or 'include'}/{path.relative_to(include_dir).as_posix()}"


def did_you_mean(written: str, known: Sequence[str]) -> str:
    """Suggest the nearest of ``known`` in a sentence, or list them when none is near."""
    near = difflib.get_close_matches(written, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known: {', '.join(known)}." if known else "There are none yet."


def checked_timezone(name: str) -> str:
    """Give the name of a time zone back; ValueError, for a field's validator, says what to write instead."""
    try:
        pendulum.timezone(name)
    except (ValueError, OSError):
        known = False
    else:
        known = name not in _MACHINE_ZONES
    if not known:
        near = difflib.get_close_matches(name, sorted(pendulum.timezones() - _MACHINE_ZONES), n=1)
        hint = f"Did you mean `{near[0]}`?" if near else "Write a name such as `UTC` or `Europe/Berlin`"
        raise ValueError(f"is not the name of a time zone. {hint}")
    return name


def mistakes_error(
    name: str, mistakes: Iterable[Mistake], lines: Mapping[FieldPath, int]
) -> ConfigurationError:
    """One error for all ``mistakes`` of the file ``name``, in the order of its lines."""
    ordered = sorted(mistakes, key=lambda mistake: _line(mistake.field, lines) or 0)
    listed = [_sentence(mistake, lines) for mistake in ordered]
    if len(listed) == 1:
        return ConfigurationError(f"{name}: {listed[0]}")
    return ConfigurationError("\n  ".join([f"{name} has {len(listed)} mistakes:", *listed]))


def _sentence(mistake: Mistake, lines: Mapping[FieldPath, int]) -> str:
    line = _line(mistake.field, lines)
    place = f"line {line}, " if line else ""
    subject = ".".join(mistake.field)
    end = "" if mistake.what.endswith((".", "?")) else "."
    return f"{place}{subject}: {mistake.what}{end} {mistake.instead}".rstrip()


def _line(field: FieldPath, lines: Mapping[FieldPath, int]) -> int | None:
    """Line of ``field``, or of the nearest field around it that the file has."""
    while field and field not in lines:
        field = field[:-1]
    return lines.get(field)


def _absent(path: Path, name: str) -> str:
    siblings = sorted(other.stem for other in path.parent.glob("*.yaml"))
    return f"there is no file {name}. {did_you_mean(path.stem, siblings)}"


def _parse(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigurationError(
            f"{name}: {line}this is not YAML ({error.problem}). Write one `field: value` a line, indent with "
            "spaces, and put quotes around a value that holds `: `, ` #`, or begins with a sign."
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        # A character that YAML forbids, or a value such as the date 2026-13-45.
        what = getattr(error, "reason", "a value that cannot be read")
        raise ConfigurationError(f"{name} is not YAML: {what}. Put quotes around such a value.") from None


def _number_lines(
    node: yaml.MappingNode, around: FieldPath, lines: dict[FieldPath, int]
) -> Iterable[Mistake]:
    """Fill ``lines``, and yield the fields that stand twice: YAML would quietly take the last of them."""
    for key, value in node.value:
        field = (*around, str(key.value))
        if field in lines:
            yield Mistake(
                field, f"stands twice, the second time on line {key.start_mark.line + 1}", "Keep one."
            )
            continue
        lines[field] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _number_lines(value, field, lines)


def _as_mistake(model: type[pydantic.BaseModel], error: Mapping[str, Any]) -> Mistake:
    location = tuple(str(part) for part in error["loc"] if part != "[key]")
    kind = error["type"]
    if kind == "extra_forbidden":
        return Mistake(location, "is not a known field", _meant_field(model, location))
    if kind == "value_error":
        return Mistake(location, str(error["ctx"]["error"]))
    what = "is missing" if kind == "missing" else str(error["msg"]).replace("Input should", "should")
    return Mistake(location, what, _example(model, location))


def _meant_field(model: type[pydantic.BaseModel], location: FieldPath) -> str:
    if len(location) > 1:  # inside a field: the model's own names would mislead
        return "Remove it."
    alias = {name: field.alias or name for name, field in model.model_fields.items()}
    written = location[0]
    return did_you_mean(alias.get(written, written), list(alias.values()))


def _example(model: type[pydantic.BaseModel], location: FieldPath) -> str:
    for name, field in model.model_fields.items():
        if location and location[0] == (field.alias or name) and field.examples:
            value = yaml.safe_dump(field.examples[0], default_flow_style=True).removesuffix("...\n").strip()
            return f"Write for example `{location[0]}: {value}`."
    return ""
