"""Jinja templates of mails: compiled from files, rendered for one user, failing without telling their data.

Knows Jinja: sandboxed, strict, escaping in HTML. What users have written is only ever data, never compiled.
Must not know what a mail looks like or where its variables come from.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import (
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
    meta,
    nodes,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lifecycle_emails.configuration_file import shown_name
from lifecycle_emails.errors import ConfigurationError, RenderFailed

_GUARDING_TESTS = frozenset({"defined", "undefined"})
_GUARDING_FILTERS = frozenset({"default", "d"})
_FILE_OF_A_TEXT = "<template>"  # what Jinja calls a template that comes from no file


class _NullValueError(Exception):
    """A template prints a value that is NULL in the source."""


def _refuse_null(value: Any) -> Any:
    if value is None:  # or a mail would greet "None"
        raise _NullValueError
    return value


@dataclass(frozen=True)
class MailTemplate:
    """A compiled template, with what has to be known to say why it failed."""

    place: str
    """What messages call it: a file, or a field of one."""
    template: Template = field(repr=False)
    places: Mapping[str, str] = field(repr=False)
    """What messages call the files that take part, by what Jinja calls them."""
    sources: tuple[str, ...] = field(repr=False)
    """Text of the template and of every template that it reaches."""
    variables: frozenset[str]
    """Variables that it cannot do without: none that it tests or gives a default."""
    words: frozenset[str] = field(repr=False)
    """Names that stand in its text, so that an error may repeat them."""

    def render(self, variables: Mapping[str, Any]) -> str:
        """Fill the template in. Raises RenderFailed, which names file, line and variable, never a value."""
        try:
            return self.template.render(variables)
        except Exception as error:  # noqa: BLE001  (a value's method may raise anything)
            failure = RenderFailed(f"{self._where(error)}: {self._reason(error)}")
        # Outside the handler: what failed may quote the user's data, and must not hang on what is raised.
        raise failure

    def _where(self, error: Exception) -> str:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self.places:
                return f"{self.places[frame.filename]}, line {frame.lineno}"
        return self.place

    def _reason(self, error: Exception) -> str:
        if isinstance(error, _NullValueError):
            return "a value is NULL; write for example {{ full_name or 'there' }}"
        if isinstance(error, UndefinedError):
            quoted = re.findall(r"'([^']*)'", error.message or "")
            named = [f"`{word}`" for word in quoted if word in self.words]
            return f"{(named or ['a variable'])[-1]} is not defined; let the audience return it"
        return f"it cannot be rendered with this user's values ({type(error).__name__})"


class TemplateFolder:
    """The templates of one folder, and those beside the folders, such as a layout that campaigns share."""

    def __init__(self, include_dir: Path, folder: str, variables: Mapping[str, Any]) -> None:
        """Find templates in ``include_dir/templates/<folder>``, then in ``include_dir/templates``.

        ``variables`` are the same for every user. Templates whose name ends in ``.html.j2`` escape what they
        print; a variable that is missing, or NULL where it is printed, is an error. Airflow's own environment
        does none of this.
        """
        self._include_dir = include_dir
        root = include_dir / "templates"
        self._loader = FileSystemLoader([root / folder, root])
        self._environment = ImmutableSandboxedEnvironment(
            loader=self._loader,
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html.j2"),
            finalize=_refuse_null,
            auto_reload=False,
        )
        self._environment.globals.update(variables)

    def load(self, name: str) -> MailTemplate:
        """Compile the template file ``name`` and all that it reaches. Raises ConfigurationError."""
        reached: dict[str, _Source] = {}
        self._read(name, "the campaign", reached)
        with _syntax_errors(next(iter(reached.values())).place):
            return self._described(self._environment.get_template(name), reached)

    def compile(self, text: str, place: str) -> MailTemplate:
        """Compile ``text`` of a campaign's field, which ``place`` names. Raises ConfigurationError."""
        with _syntax_errors(place):
            tree = self._environment.parse(text)
            reached = {"": _Source(place, _FILE_OF_A_TEXT, text, tree)}
            self._read_references(tree, place, reached)
            return self._described(self._environment.from_string(text), reached)

    def _read(self, name: str, wanted_by: str, reached: dict[str, _Source]) -> None:
        if name in reached:
            return
        try:
            text, file, _ = self._loader.get_source(self._environment, name)
        except TemplateNotFound:
            raise ConfigurationError(f"{wanted_by} names template {name}, which does not exist.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"the template {name} is not UTF-8 text; save it as UTF-8.") from None
        place = shown_name(Path(file), self._include_dir)
        with _syntax_errors(place):
            tree = self._environment.parse(text)
            reached[name] = _Source(place, file, text, tree)
            self._environment.get_template(name)  # finds filters and tests that do not exist
        self._read_references(tree, place, reached)

    def _read_references(self, tree: nodes.Template, place: str, reached: dict[str, _Source]) -> None:
        for name in meta.find_referenced_templates(tree):
            if name is None:
                raise ConfigurationError(f"{place} computes the name of a template; write the name out.")
            self._read(name, place, reached)

    def _described(self, template: Template, reached: Mapping[str, _Source]) -> MailTemplate:
        trees = [source.tree for source in reached.values()]
        needed = set().union(*(meta.find_undeclared_variables(tree) for tree in trees))
        given = set(self._environment.globals).union(*map(_guarded_or_set, trees))
        # Jinja copies the globals for every rendering: out of its ChainMap, that costs more than rendering.
        template.globals = dict(template.globals)
        return MailTemplate(
            place=next(iter(reached.values())).place,
            template=template,
            places={source.file: source.place for source in reached.values()},
            sources=tuple(source.text for source in reached.values()),
            variables=frozenset(needed - given),
            words=frozenset().union(*map(_words, trees)),
        )


@dataclass(frozen=True)
class _Source:
    place: str
    file: str
    text: str
    tree: nodes.Template


@contextmanager
def _syntax_errors(place: str) -> Iterator[None]:
    try:
        yield
    except TemplateSyntaxError as error:
        raise ConfigurationError(
            f"{place}, line {error.lineno}: {error.message}. Mend the template, then clear the task."
        ) from None


def _guarded_or_set(tree: nodes.Template) -> Iterator[str]:
    """Yield variables that the template tests, gives a default, or sets itself."""
    for guard in tree.find_all((nodes.Test, nodes.Filter)):
        guards = _GUARDING_TESTS if isinstance(guard, nodes.Test) else _GUARDING_FILTERS
        if guard.name in guards and isinstance(guard.node, nodes.Name):
            yield guard.node.name
    for name in tree.find_all(nodes.Name):
        if name.ctx == "store":
            yield name.name


def _words(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Const)):
        word = getattr(node, {nodes.Name: "name", nodes.Getattr: "attr"}.get(type(node), "value"))
        if isinstance(word, str):
            yield word
