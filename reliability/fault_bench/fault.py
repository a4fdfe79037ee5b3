"""The frame of the fault bench: a fault, what it is played in, and what was seen.

A fault is a row of the table that `make chaos` prints. Rows are made by the other modules of this package.
This one knows nothing of senders, servers or Airflow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.postgres import PostgresServer


@dataclass(frozen=True)
class Patch:
    """A textual replacement in one file of the package. ``old`` must stand there exactly once."""

    file: str
    """Path below the import root, for example ``lifecycle_emails/ledger/gate.py``."""
    old: str
    new: str


@dataclass(frozen=True)
class Variant:
    """The package without a protection: a patched copy, never a switch in the package."""

    name: str
    """What is missing, in words."""
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class Setting:
    """What a fault is played in. Everything in it belongs to this play alone, except the Postgres server."""

    folder: Path
    """An empty folder, removed after the play."""
    ports: range
    """Loopback ports that nobody else of the bench uses; most programs pick a free port by themselves."""
    postgres: PostgresServer
    """A running server; a play creates databases with names of its own in it and drops them."""
    tree: Path
    """Import root that holds ``lifecycle_emails``: ``plugins/``, or a patched copy of it."""
    thorough: bool = False
    """Whether this is the long run: all points, large sizes, many rounds."""


@dataclass(frozen=True)
class Observation:
    """What was seen in one play. Copies are counted by the sink, never by the ledger."""

    runs: int
    """How many processes or runs did the work."""
    kills: int
    """How many of them were killed with SIGKILL by the bench."""
    max_copies: int
    """The most accepted copies of one campaign to one user."""
    lost: int
    """Users without a final state or a reason, or called sent without an accepted copy."""
    in_doubt: int
    """Users in doubt in the ledger at the end."""
    in_doubt_expected: int
    """How many must be, from the sink's file and the kill point alone."""
    problems: tuple[str, ...] = ()
    """What else was not as it should be, in words."""
    kill_points: Mapping[str, int] = field(default_factory=dict)
    """Kills by named point."""

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return (
            self.max_copies <= 1
            and self.lost == 0
            and self.in_doubt == self.in_doubt_expected
            and not self.problems
        )


@dataclass(frozen=True)
class Fault:
    """One row of the table: a fault, what must come of it, and which protection sees to that."""

    name: str
    expected: str
    protection: str
    play: Callable[[Setting, random.Random], Observation] | None
    """None only with ``not_automated_because``."""
    without: tuple[Variant, ...] = ()
    """The package without this protection: `play` must not hold. One variant for each protection."""
    not_automated_because: str | None = None
    slow: bool = False
    """Whether only the long run plays it, because it takes longer than ten seconds."""


Faults = tuple[Fault, ...]
"""A module of rows names its own ``FAULTS: Faults``."""
