"""A mutant: one small wrong change of the package, and the fast tests that must notice it.

Knows text and files. Must not know what the changes mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = "plugins/lifecycle_emails/"


class MutantError(Exception):
    """A mutant that says nothing: its text is gone or is there twice, or its tests fail without it."""


@dataclass(frozen=True)
class Mutant:
    """``old`` stands once in ``file`` (below the package) and becomes ``new``; ``tests`` are pytest ids."""

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        """Change a copy of the repository. Raises MutantError where the text does not stand exactly once."""
        path = tree / PACKAGE / self.file
        path.write_text(self.changed(path.read_text()))

    def changed(self, text: str) -> str:
        """The file's text with the mutant in it."""
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            raise MutantError(
                f"mutant {self.name!r}: its text stands {found} times in {self.file}, not once; "
                "change the mutant along with the code it is a mutant of"
            )
        return text.replace(self.old, self.new)
