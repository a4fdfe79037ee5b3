"""What must hold in every state: at most one copy, nothing silently lost, no doubt without a cause."""

from __future__ import annotations

from reliability.protocol_model.protocol import LOST, TWO_COPIES, UNTRUE
from reliability.protocol_model.state import IDLE, State

SETTLED = frozenset({"sent", "rejected", "held", "planned", "ready"})
"""At rest a user is in one of these, or in doubt until a person settles it; planned and ready await a run."""


def two_copies(state: State) -> str | None:
    """Whether somebody was mailed twice, in words."""
    for number, user in enumerate(state.users, start=1):
        if user.accepted > 1:
            return f"{TWO_COPIES}: a server accepted the mail of user {number} twice"
    return None


def broken(state: State) -> str | None:
    """What this state breaks, in words."""
    twice = two_copies(state)
    if twice is not None:
        return twice
    at_rest = _at_rest(state)
    for number, user in enumerate(state.users, start=1):
        if user.breach:
            return f"{user.breach} (user {number})"
        if not at_rest:
            continue
        if user.state == "sent" and user.accepted == 0:
            return f"{LOST}: user {number} counts as sent, and no server accepted the mail"
        if user.state in ("held", "rejected") and user.accepted:
            return f"{UNTRUE}: user {number} counts as {user.state}, and a server accepted the mail"
        if user.state == "held" and not user.reason:
            return f"{LOST}: user {number} is held without a reason"
    return None


def settled(state: State) -> bool:
    """Nothing is under way, and nobody waits for anything but the next run."""
    return _at_rest(state) and all(user.state in SETTLED for user in state.users)


def _at_rest(state: State) -> bool:
    return (
        not state.strays
        and all(lane.at == IDLE for process in state.processes for lane in process.lanes)
        and not any(user.adrift for user in state.users)
    )
