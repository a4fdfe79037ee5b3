"""What the model remembers: the ledger's rows, the SMTP servers' mails, and the processes that send.

A token is a fresh uuid per dialogue, so all that matters of it is where it stands: in no row, in a
transaction that is not decided yet, or in the row. `late` and `due` are all that is known of time, which may
pass at any step: a frozen process (SIGSTOP) takes no step meanwhile, and thawing is its next step.
"""

from __future__ import annotations

from typing import NamedTuple

# Where a lane is in its dialogue. Only these words are compared, so they are plain strings: hashed fast.
IDLE = "idle"
ASKING = "asking the gate"  # the whole body is written, the dot is not
ASKED_YES = "asked, to pass"  # in a group: its transaction says passed
ASKED_HOLD = "asked, to be held"
ASKED_LOST = "asked, and lost"
PASSED = "passed"  # the answer to COMMIT was read
CHECKED = "checked"  # looked at the clock; the next step is the dot
DOTTED = "dotted"  # the dot is written, the server has not decided
ACCEPTED = "accepted"  # 250 is on its way
REFUSED = "refused"  # 4xx or 5xx is on its way
KNOWS = "knows "  # + outcome: in memory, not recorded
RECORDS = "records "  # + outcome: in a group

IN_ROW, IN_UNDECIDED = "row", "open"  # where a token stands, if anywhere

SENT, RETRY, NO_DOT, DOUBT = "sent", "retry", "no_dot", "in_doubt"
RETRY_THEN_REJECT = "retry, then rejected"  # refused after the dot, with evidence about the recipient
REJECT = "rejected"  # that evidence: written without a token, over a row that is still ready
FORCED_READY = "ready, whoever has it"  # what only a mutant writes


class User(NamedTuple):
    """One row of lifecycle.sends, and what the world knows of its user."""

    state: str = "planned"
    reason: str = ""
    attempted: bool = False
    due: bool = False
    """answer_due of the newest attempt is past."""
    suppressed: bool = False
    over: bool = False
    """The cohort's deadline is past."""
    accepted: int = 0
    """Copies the SMTP server accepted; counted up to two."""
    adrift: int = 0
    """Dots the server has not decided on, whose sender is dead or no longer listens."""
    breach: str = ""
    """What a step did that no protocol may do; such a state is the end of a search."""


class Lane(NamedTuple):
    """One SMTP connection of a process, and the one dialogue on it."""

    at: str = IDLE
    user: int = 0
    token: str = ""
    """Where this dialogue's token stands: '' nowhere, else `IN_UNDECIDED` (a transaction) or `IN_ROW`."""
    late: bool = False
    """Ten seconds have passed since the gate was asked."""


class Effect(NamedTuple):
    """What a transaction does to one row when it is committed."""

    user: int
    state: str
    reason: str = ""
    gates: bool = False
    """Writes a new token."""


class Process(NamedTuple):
    """A task's process: its lanes, and the one ledger connection on which its groups are committed."""

    lanes: tuple[Lane, ...]
    group: str = ""
    """'' none, 'open' its transaction ran, 'committed' the answer to COMMIT is on its way."""
    effects: tuple[Effect, ...] = ()


class State(NamedTuple):
    """Everything. ``strays``: transactions whose connection broke at COMMIT; they may still be committed."""

    users: tuple[User, ...]
    processes: tuple[Process, ...]
    strays: tuple[tuple[Effect, ...], ...] = ()


def beginning(users: int, lanes: tuple[int, ...]) -> State:
    """All users planned, ``lanes[i]`` idle lanes in process i."""
    return State((User(),) * users, tuple(Process((Lane(),) * count) for count in lanes))


def canonical(state: State) -> State:
    """Lanes of a process, processes and strays are alike but for their names: put them in order."""
    processes = tuple(
        sorted(
            process if len(process.lanes) == 1 else process._replace(lanes=tuple(sorted(process.lanes)))
            for process in state.processes
        )
    )
    return State(state.users, processes, tuple(sorted(state.strays)))
