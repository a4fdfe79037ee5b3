"""Everything that can happen next: to the rows, to the processes that send, and to what they rely on.

Follows ledger/gate.py, delivery/lane.py, ledger/judging.py and their queries. A step is what nothing else can
come between; whatever can be killed, cut or overtaken is a step of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reliability.protocol_model import lane_steps
from reliability.protocol_model.checker import Step
from reliability.protocol_model.ledger_steps import apply, locked, with_user
from reliability.protocol_model.protocol import Protocol
from reliability.protocol_model.state import (
    CHECKED,
    DOTTED,
    IDLE,
    IN_ROW,
    IN_UNDECIDED,
    Effect,
    Lane,
    Process,
    State,
    User,
)


@dataclass(frozen=True)
class Scope:
    """How much of the world a search takes in.

    ``lanes``: of each process. ``judging``: users unsubscribe, come back, meet a deadline or the cap, and are
    judged again; else every planned user becomes ready. ``rejections``: servers may refuse a recipient for
    good. ``sought``: what this scope is for, in words.
    """

    name: str
    users: int
    lanes: tuple[int, ...]
    judging: bool
    rejections: bool
    sought: str


class Steps:
    """The steps of one protocol within one scope."""

    def __init__(self, protocol: Protocol, scope: Scope) -> None:
        self._protocol = protocol
        self._scope = scope

    def __call__(self, state: State) -> Iterator[Step[State]]:
        """Every step from here."""
        for number, user in enumerate(state.users):
            yield from self._time(state, number, user)
            if self._scope.judging:
                yield from _world(state, number, user)
            if not locked(state, number):
                yield from self._judge(state, number, user)
                yield from self._upkeep(state, number, user)
            yield from _dots_adrift(state, number, user)
        for number, process in enumerate(state.processes):
            if process in state.processes[:number]:
                continue  # alike in everything: what one does, the other does
            yield from lane_steps.steps(self._protocol, state, number, rejections=self._scope.rejections)
            if _busy(process):
                yield Step(f"sender {number + 1} is killed", _kill(self._protocol, state, number), fault=True)
        for number, stray in enumerate(state.strays):
            rest = state._replace(strays=state.strays[:number] + state.strays[number + 1 :])
            yield Step(
                "the COMMIT whose answer nobody reads takes effect", apply(self._protocol, rest, stray)
            )
            yield Step("the transaction whose connection broke is rolled back", _roll_back(rest, stray))

    def _time(self, state: State, number: int, user: User) -> Iterator[Step[State]]:
        """answer_due passes: more than ten seconds after the gate was asked, so its lane is late as well."""
        if user.due or user.state not in ("sending", "in_doubt"):
            return
        holders = [lane for lane in _lanes(state) if lane.user == number and lane.token == IN_ROW]
        if not self._protocol.clock_runs_before_dot and any(lane.at == CHECKED for lane in holders):
            return
        processes = tuple(
            process._replace(
                lanes=tuple(
                    lane._replace(late=True)
                    if lane.user == number and lane.token == IN_ROW and lane.at in lane_steps.WATCHES_CLOCK
                    else lane
                    for lane in process.lanes
                )
            )
            for process in state.processes
        )
        passed = with_user(state, number, user._replace(due=True))._replace(processes=processes)
        yield Step(f"answer_due of user {number + 1} passes", passed)

    def _judge(self, state: State, number: int, user: User) -> Iterator[Step[State]]:
        """What filter_ledger, limit_rate and extract_cohort do to a row that no attempt holds."""
        name = f"user {number + 1}"
        hold = "stale" if user.over else "suppressed" if user.suppressed else ""

        def move(words: str, to: str, reason: str = "") -> Step[State]:
            return Step(f"{name}: {words}", with_user(state, number, user._replace(state=to, reason=reason)))

        if user.state in ("planned", "ready") and hold:
            yield move(f"filter_ledger holds: {hold}", "held", hold)
        if user.state == "held" and user.reason in ("suppressed", "stale") and not hold:
            yield move("filter_ledger judges again", "planned")
        judged_by_cap = user.state == "planned" or (user.state == "held" and user.reason == "capped")
        if judged_by_cap and not hold:
            yield move("limit_rate reserves a slot", "ready")
        if not self._scope.judging:
            return
        if user.state == "planned" and not hold:
            yield move("limit_rate holds: capped", "held", "capped")
        if user.state in ("held", "ready"):
            yield move("extract_cohort moves it to another cohort", "planned")
        if user.state == "rejected":
            yield move("a person releases it", "planned")

    def _upkeep(self, state: State, number: int, user: User) -> Iterator[Step[State]]:
        """The sweep; and a log or a person who settles a doubt. What bounced was delivered to nobody."""
        protocol = self._protocol
        name = f"user {number + 1}"
        to = protocol.sweep_writes
        if to and user.state == "sending" and (user.due or not protocol.sweep_needs_due):
            yield Step(f"{name}: the sweep writes {to}", with_user(state, number, user._replace(state=to)))
        if user.state != "in_doubt":
            return
        if protocol.doubt_resends_itself:
            again = user._replace(state="planned")
            yield Step(f"{name}: maintenance puts the doubt back to planned", with_user(state, number, again))
        if protocol.evidence == "nobody asks":
            return
        if user.accepted:
            settled = with_user(state, number, user._replace(state="sent"))
            yield Step(f"{name}: the mail server's log settles 'sent'", settled)
        if user.accepted and self._scope.rejections:
            bounced = user._replace(state="rejected", accepted=user.accepted - 1)
            yield Step(f"{name}: the log says that it bounced", with_user(state, number, bounced))
        if protocol.settling_needs_due and not user.due:
            return
        if self._may_send_again(state, number, user):
            settled = with_user(state, number, user._replace(state="planned"))
            yield Step(f"{name}: a person settles 'send again'", settled)

    def _may_send_again(self, state: State, number: int, user: User) -> bool:
        """The old process is gone, and the provider, asked then, says that it never had the mail."""
        mine = [lane for lane in _lanes(state) if lane.user == number and lane.at != IDLE]
        if self._protocol.settling_needs_dead_process and any(lane.token == IN_ROW for lane in mine):
            return False
        if self._protocol.evidence == "none":
            return True
        undecided = user.adrift or any(lane.at == DOTTED for lane in mine)
        return not user.accepted and (self._protocol.evidence == "no line" or not undecided)


def _world(state: State, number: int, user: User) -> Iterator[Step[State]]:
    """What happens to a user while rows are in any state."""
    name = f"user {number + 1}"
    turned = user._replace(suppressed=not user.suppressed)
    words = "comes back" if user.suppressed else "unsubscribes"
    yield Step(f"{name} {words}", with_user(state, number, turned))
    if not user.over:
        yield Step(
            f"{name}: the cohort's deadline passes", with_user(state, number, user._replace(over=True))
        )


def _dots_adrift(state: State, number: int, user: User) -> Iterator[Step[State]]:
    """The server decides on a dot that nobody waits for any more."""
    if user.adrift:
        fewer = user._replace(adrift=user.adrift - 1)
        accepted = fewer._replace(accepted=min(user.accepted + 1, 2))
        words = f"the server, whose client is gone, {{}} the mail of user {number + 1}"
        yield Step(words.format("ACCEPTS"), with_user(state, number, accepted))
        yield Step(words.format("forgets"), with_user(state, number, fewer))


def _lanes(state: State) -> Iterator[Lane]:
    return (lane for process in state.processes for lane in process.lanes)


def _busy(process: Process) -> bool:
    return any(lane.at != IDLE for lane in process.lanes)


def _kill(protocol: Protocol, state: State, number: int) -> State:
    """SIGKILL: memory is gone; an open transaction may still be committed, a written dot accepted."""
    process = state.processes[number]
    users = list(state.users)
    for lane in process.lanes:
        if lane.at == DOTTED:
            user = users[lane.user]
            users[lane.user] = user._replace(adrift=min(user.adrift + 1, 2))
    strays = state.strays
    # A lock held over the send has sent no COMMIT yet: it ends with its connection.
    if process.group == "open" and process.effects and protocol.commits_to == "gate":
        strays = (*strays, process.effects)
    fresh = Process((Lane(),) * len(process.lanes))
    processes = (*state.processes[:number], fresh, *state.processes[number + 1 :])
    return State(tuple(users), processes, strays)


def _roll_back(state: State, effects: tuple[Effect, ...]) -> State:
    """Nothing happened; a token that stood in this transaction stands nowhere."""
    gated = {effect.user for effect in effects if effect.gates}
    processes = tuple(
        process._replace(
            lanes=tuple(
                lane._replace(token="") if lane.token == IN_UNDECIDED and lane.user in gated else lane
                for lane in process.lanes
            )
        )
        for process in state.processes
    )
    return state._replace(processes=processes)
