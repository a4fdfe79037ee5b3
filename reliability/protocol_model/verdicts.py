"""Which protocol is searched in which scope, and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reliability.protocol_model.checker import Checked, Model, check
from reliability.protocol_model.properties import broken, settled, two_copies
from reliability.protocol_model.protocol import (
    CARELESS,
    LIMIT,
    LIMIT_WITHOUT_FREEZE,
    MUTANTS,
    REAL,
    STANDS_BEHIND,
    TWO_COPIES,
    Protocol,
)
from reliability.protocol_model.state import State, beginning, canonical
from reliability.protocol_model.steps import Scope, Steps

THREE_SENDERS = Scope(
    "three senders", 1, (1, 1, 1), judging=False, rejections=True,
    sought="three processes at once for one user, and any number of redeliveries",
)  # fmt: skip
SHARED_PROCESS = Scope(
    "one process of two", 1, (2, 1), judging=False, rejections=False,
    sought="a redelivery within the same process, and another process beside it",
)  # fmt: skip
JUDGED_AGAIN = Scope(
    "judged again", 1, (1, 1), judging=True, rejections=True,
    sought="users who unsubscribe and come back, deadlines, the cap, cohorts moved, releases",
)  # fmt: skip
GROUP_COMMIT = Scope(
    "group commit", 2, (2,), judging=False, rejections=False,
    sought="outcomes and questions of two users in one transaction",
)  # fmt: skip
TWO_SENDERS = Scope(
    "two senders", 1, (1, 1), judging=False, rejections=True,
    sought="the smallest world in which the careless protocols and the mutants fail",
)  # fmt: skip

SCOPES_OF_REAL = (THREE_SENDERS, SHARED_PROCESS, JUDGED_AGAIN, GROUP_COMMIT)

_SCOPE_OF_MUTANT = {
    "gate trusts the filter": JUDGED_AGAIN,
    "a key twice in a group": replace(SHARED_PROCESS, name="one process", lanes=(2,)),
}


@dataclass(frozen=True)
class Search:
    """One protocol in one scope. ``kind`` groups them in the table."""

    kind: str
    protocol: Protocol
    scope: Scope

    @property
    def expected_to_hold(self) -> bool:
        """Whether the search should find nothing."""
        return not self.protocol.fails_by


@dataclass(frozen=True)
class Verdict:
    """What one search found."""

    search: Search
    checked: Checked[State]

    @property
    def as_expected(self) -> bool:
        """Whether it holds where it should, and fails as it should."""
        found = self.checked.broken or ""
        expected = self.search.protocol.fails_by
        return found.startswith(expected) if expected else self.checked.holds


def searches() -> list[Search]:
    """Every search, in the order of the table."""
    kinds = (
        ("careless", CARELESS),
        ("mutant", MUTANTS),
        ("limit", (LIMIT, LIMIT_WITHOUT_FREEZE)),
        ("stands behind", STANDS_BEHIND),
    )
    return [Search("real", REAL, scope) for scope in SCOPES_OF_REAL] + [
        Search(kind, protocol, _SCOPE_OF_MUTANT.get(protocol.name, TWO_SENDERS))
        for kind, protocols in kinds
        for protocol in protocols
    ]


def search(what: Search, *, observe: Callable[[State, State], None] | None = None) -> Verdict:
    """Search the whole scope, or up to the first fault. Where two copies are expected, only for those.

    A mutant breaks smaller promises on the way to a second copy; the trace to the copy says more.
    """
    for_copies = what.protocol.fails_by == TWO_COPIES
    model = Model(
        initial=beginning(what.scope.users, what.scope.lanes),
        steps=Steps(what.protocol, what.scope),
        canonical=canonical,
        broken=two_copies if for_copies else broken,
        settled=settled,
    )
    return Verdict(what, check(model, observe=observe))
