"""What a transaction of the gate does to rows: its guards, and its effects when it is committed.

The counterpart of lock_sends, pass_gate and record_outcomes. A row in an undecided transaction is locked, and
whoever else wants it waits.
"""

from __future__ import annotations

from reliability.protocol_model.protocol import NOT_FINAL, Protocol
from reliability.protocol_model.state import (
    ASKED_HOLD,
    ASKED_LOST,
    ASKED_YES,
    DOUBT,
    FORCED_READY,
    IDLE,
    IN_ROW,
    IN_UNDECIDED,
    KNOWS,
    REJECT,
    SENT,
    Effect,
    Lane,
    State,
    User,
)


def with_user(state: State, number: int, user: User) -> State:
    """The state with this user's row replaced. `due` speaks of an attempt in flight, and is kept tidy."""
    if user.due and user.state not in ("sending", "in_doubt"):
        user = user._replace(due=False)
    old = state.users[number].state
    if old == "sent" and user.state != old:
        user = user._replace(breach=f"{NOT_FINAL}: a row in 'sent' became {user.state}")
    return state._replace(users=(*state.users[:number], user, *state.users[number + 1 :]))


def locked(state: State, number: int) -> bool:
    """Whether an undecided transaction has this row."""
    return any(effect.user == number for stray in state.strays for effect in stray) or any(
        process.group == "open" and any(effect.user == number for effect in process.effects)
        for process in state.processes
    )


def judge_question(protocol: Protocol, user: User, lane: Lane) -> tuple[str, Effect | None, bool]:
    """pass_gate: where the lane stands then, what becomes of the row, and whether that is against a rule."""
    if protocol.gate_needs_ready and user.state != "ready":
        return ASKED_LOST, None, False
    hold = "stale" if user.over else "suppressed" if user.suppressed else ""
    if hold and protocol.gate_judges_again:
        return ASKED_HOLD, Effect(lane.user, "held", hold), False
    return ASKED_YES, Effect(lane.user, protocol.gate_writes, gates=True), bool(hold)


def judge_outcome(protocol: Protocol, user: User, lane: Lane) -> Effect | None:
    """record_outcomes: what an outcome in memory does to the row; None where no row matches."""
    outcome = lane.at.removeprefix(KNOWS)
    if not _matches(protocol, user, lane, outcome):
        return None
    step_back = "planned" if user.state == "in_doubt" else "ready"
    written = {SENT: "sent", DOUBT: "in_doubt", REJECT: "rejected", FORCED_READY: "ready"}
    return Effect(lane.user, written.get(outcome, step_back))


def _matches(protocol: Protocol, user: User, lane: Lane, outcome: str) -> bool:
    """The WHERE of record_outcomes."""
    if outcome == FORCED_READY:
        return user.state == "sending"
    if outcome == REJECT:
        return user.state == "ready" or not protocol.rejection_needs_ready
    if protocol.outcome_needs_token and lane.token != IN_ROW:
        return False
    in_flight = ("sending", "in_doubt") if protocol.outcome_settles_doubt else ("sending",)
    if protocol.outcome_needs_flight and user.state not in in_flight:
        return False
    return not (outcome == DOUBT and user.state == "in_doubt")


def apply(protocol: Protocol, state: State, effects: tuple[Effect, ...]) -> State:
    """Commit: the rows change, and a gated row carries the new token in place of any older one."""
    for effect in effects:
        user = state.users[effect.user]._replace(state=effect.state, reason=effect.reason)
        if effect.gates:
            user = user._replace(attempted=True, due=False)
            state = _hand_over_token(protocol, state, effect.user)
        state = with_user(state, effect.user, user)
    return state


def _hand_over_token(protocol: Protocol, state: State, number: int) -> State:
    def token(lane: Lane) -> Lane:
        if lane.user != number or lane.at == IDLE:
            return lane
        carried = lane.token == IN_UNDECIDED or not protocol.token_per_dialogue
        return lane._replace(token="row" if carried else "")

    processes = tuple(p._replace(lanes=tuple(map(token, p.lanes))) for p in state.processes)
    return state._replace(processes=processes)
