"""The rows of the bench and the table it prints."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import reliability.fault_bench as package
from reliability.fault_bench.fault import Fault, Observation

PREFIXES = ("rows_of_", "airflow_")
"""Modules of this package that may name ``FAULTS``."""

HEADER = (
    "fault", "protection", "runs", "max accepted per user", "lost", "in doubt", "expected", "verdict",
    "verdict without the protection",
)  # fmt: skip
WIDTHS = (46, 38, 5, 8, 5, 6, 8, 10, 12)


@dataclass(frozen=True)
class Row:
    """A fault and where it comes from."""

    fault: Fault
    needs_airflow: bool


def all_rows() -> list[Row]:
    """Every fault of every module, in a fixed order."""
    rows = []
    for module in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        if module.startswith(PREFIXES):
            faults = getattr(import_module(f"{package.__name__}.{module}"), "FAULTS", ())
            rows += [Row(fault, module.startswith("airflow_")) for fault in faults]
    return sorted(rows, key=lambda row: row.needs_airflow)


@dataclass
class Played:
    """What came of one row: plays with the protection, and plays of each variant without it."""

    fault: Fault
    plays: list[Observation]
    without: dict[str, list[Observation]]
    errors: list[str]

    @property
    def verdict(self) -> str:
        """Whether the promise was kept in every play."""
        if self.fault.play is None:
            return "not automated"
        if self.errors:
            return "bench error"
        if not self.plays:
            return "not played"
        return "holds" if all(play.holds for play in self.plays) else "FAILS"

    @property
    def verdict_without(self) -> str:
        """Whether every variant was found out: its promise must not hold, and it must still do something.

        A copy of the package that is merely broken, by a syntax error for example, sends nobody anything and
        so proves nothing about the protection.
        """
        if not self.without:
            return "-"
        if not all(any(not play.holds for play in plays) for plays in self.without.values()):
            return "HOLDS"
        return "BROKEN" if any(map(self._is_broken, self.without)) else "fails"

    def _is_broken(self, variant: str) -> bool:
        """Whether nobody got a mail from it, or may have got one, where the package itself sends."""
        sends = any(play.max_copies for play in self.plays)
        return sends and not any(play.max_copies or play.in_doubt for play in self.without[variant])

    @property
    def is_good(self) -> bool:
        """Whether the row says what it should."""
        return self.verdict in ("holds", "not played", "not automated") and self.verdict_without in (
            "-",
            "fails",
        )


def in_words(played: Sequence[Played]) -> str:
    """The table, then what could not be played and every problem that was found."""
    lines = [_line(HEADER), _line(tuple("-" * width for width in WIDTHS))]
    for row in played:
        plays = row.plays
        figures = (
            sum(play.runs for play in plays),
            max((play.max_copies for play in plays), default="-"),
            sum(play.lost for play in plays),
            sum(play.in_doubt for play in plays),
            sum(play.in_doubt_expected for play in plays),
        )
        lines.append(_line((
            row.fault.name, row.fault.protection, *map(str, figures), row.verdict, row.verdict_without,
        )))  # fmt: skip
    for row in played:
        if row.fault.not_automated_because:
            lines.append(f"\n{row.fault.name}: not automated, because {row.fault.not_automated_because}")
        problems = [*row.errors, *(problem for play in row.plays for problem in play.problems)]
        lines += [f"\n{row.fault.name}: {problem}" for problem in problems]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    """One row of the table, its long cells on several lines."""
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(map(len, wrapped))
    return "\n".join(
        "  ".join(
            (cell[number] if number < len(cell) else "").ljust(width)
            for cell, width in zip(wrapped, WIDTHS, strict=True)
        ).rstrip()
        for number in range(height)
    )


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
