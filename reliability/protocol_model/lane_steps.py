"""What one sending process can do next: its lanes' dialogues, and the group commit they share.

The counterpart of delivery/lane.py and of the gate's thread in ledger/gate.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from reliability.protocol_model.checker import Step
from reliability.protocol_model.ledger_steps import apply, judge_outcome, judge_question, locked, with_user
from reliability.protocol_model.protocol import AGAINST_A_RULE, NEEDLESS_DOUBT, Protocol
from reliability.protocol_model.state import (
    ACCEPTED,
    ASKED_HOLD,
    ASKED_LOST,
    ASKED_YES,
    ASKING,
    CHECKED,
    DOTTED,
    DOUBT,
    FORCED_READY,
    IDLE,
    IN_ROW,
    IN_UNDECIDED,
    KNOWS,
    NO_DOT,
    PASSED,
    RECORDS,
    REFUSED,
    REJECT,
    RETRY,
    RETRY_THEN_REJECT,
    SENT,
    Effect,
    Lane,
    Process,
    State,
)

WATCHES_CLOCK = (ASKING, ASKED_YES, PASSED)
_ASKED = (ASKED_YES, ASKED_HOLD, ASKED_LOST)


def steps(protocol: Protocol, state: State, number: int, *, rejections: bool) -> Iterator[Step[State]]:
    """Every step of process ``number``. ``rejections``: servers may refuse a recipient for good."""
    process = state.processes[number]
    for lane_number, lane in enumerate(process.lanes):
        if lane in process.lanes[:lane_number]:
            continue  # alike in everything: what one does, the other does
        yield from _LaneSteps(protocol, state, number, lane_number, rejections).all()
    if process.group == "":
        yield from _run_group(protocol, state, number)
    elif process.group == "open" and protocol.commits_to == "gate":
        committed = apply(protocol, state, process.effects)
        waiting = committed.processes[number]._replace(group="committed", effects=())
        yield Step(f"{_name(number)}: its group is committed", _with_process(committed, number, waiting))
        cut = _lose_answer(protocol, state, number)
        if process.effects:
            cut = cut._replace(strays=(*cut.strays, process.effects))
        yield Step(f"{_name(number)}: its ledger connection breaks at COMMIT", cut, fault=True)
    elif process.group == "committed":
        yield Step(f"{_name(number)} reads the answer to COMMIT", _read_answer(state, number))
        lost = _lose_answer(protocol, state, number)
        yield Step(f"{_name(number)}: the answer to COMMIT is lost", lost, fault=True)


class _LaneSteps:
    """The dialogue of one lane."""

    def __init__(
        self, protocol: Protocol, state: State, number: int, lane_number: int, rejections: bool
    ) -> None:
        self._rejections = rejections
        self._protocol = protocol
        self._state = state
        self._number = number
        self._lane_number = lane_number
        self._process = state.processes[number]
        self._lane = self._process.lanes[lane_number]
        lanes = len(self._process.lanes)
        self._name = _name(number) if lanes == 1 else f"{_name(number)}, lane {lane_number + 1}"

    def all(self) -> Iterator[Step[State]]:
        """What this lane can do, and what can happen to it."""
        lane = self._lane
        if lane.at == IDLE:
            yield from self._begin()
        elif lane.at in (ASKING, PASSED, CHECKED):
            yield from self._before_dot()
        elif lane.at == DOTTED:
            yield from self._server_decides()
        elif lane.at in (ACCEPTED, REFUSED):
            yield from self._read_answer()
        elif self._protocol.commits_to != "gate" and lane.at.startswith(KNOWS):
            yield from self._record_without_gate()
        if lane.at in WATCHES_CLOCK and not lane.late:
            yield self._to("stands still for more than 10 s", lane.at, late=True)

    def _before_dot(self) -> Iterator[Step[State]]:
        at = self._lane.at
        if at == ASKING:
            yield self._to("is refused before the dot", IDLE)
            if self._rejections:
                yield self._to("is refused before the dot, about the recipient", KNOWS + REJECT)
            return
        if at == CHECKED:
            yield self._to("WRITES THE DOT", DOTTED)
        elif self._lane.late and self._protocol.ten_seconds:
            yield self._to("is more than 10 s late: no dot", KNOWS + NO_DOT)
        else:
            yield self._to("looks at the clock", CHECKED)
        yield self._to("finds that the server has gone: no dot", KNOWS + NO_DOT)

    def _read_answer(self) -> Iterator[Step[State]]:
        if self._lane.at == ACCEPTED:
            yield self._to("reads 250", KNOWS + SENT)
        else:
            yield self._to("reads a refusal", KNOWS + RETRY)
            if self._rejections:
                yield self._to("reads a refusal about the recipient", KNOWS + RETRY_THEN_REJECT)
        yield self._to("reads no answer to its dot", KNOWS + self._protocol.silence_is, fault=True)

    def _begin(self) -> Iterator[Step[State]]:
        """A new execution: whichever run, retry or redelivery brought it, it finds the user ready."""
        protocol, state = self._protocol, self._state
        for number, user in enumerate(state.users):
            if user.state != "ready" or (protocol.commits_to == "row lock" and locked(state, number)):
                continue
            token = "" if protocol.token_per_dialogue or not user.attempted else IN_ROW
            words = f"offers the mail of user {number + 1}, up to the dot"
            if protocol.commits_to == "gate":
                yield self._to(words, ASKING, user=number, token=token)
            else:
                begun = self._to(words, CHECKED, user=number, token=token)
                if protocol.commits_to == "row lock":
                    held = begun.to.processes[self._number]._replace(
                        group="open", effects=(Effect(number, "sent"),)
                    )
                    begun = begun._replace(to=_with_process(begun.to, self._number, held))
                yield begun

    def _server_decides(self) -> Iterator[Step[State]]:
        number = self._lane.user
        user = self._state.users[number]
        accepted = with_user(self._state, number, user._replace(accepted=min(user.accepted + 1, 2)))
        yield self._to("- the server ACCEPTS", ACCEPTED, state=accepted)
        yield self._to("- the server refuses", REFUSED)
        adrift = with_user(self._state, number, user._replace(adrift=min(user.adrift + 1, 2)))
        yield self._to("loses the server", KNOWS + self._protocol.silence_is, state=adrift, fault=True)

    def _record_without_gate(self) -> Iterator[Step[State]]:
        """check-send-record writes 'sent' by key; a lock held over the send ends by COMMIT or ROLLBACK."""
        sent = self._lane.at == KNOWS + SENT
        done = self._to("writes down 'sent'" if sent else "writes down a failure", IDLE)
        process = done.to.processes[self._number]._replace(group="", effects=())
        state = _with_process(done.to, self._number, process)
        if sent:
            state = apply(self._protocol, state, (Effect(self._lane.user, "sent"),))
        yield done._replace(to=state)
        if self._process.group == "open":
            lost = _with_process(done.to, self._number, process)
            yield Step(f"{self._name}: its ledger connection breaks", lost, fault=True)

    def _to(
        self,
        words: str,
        at: str,
        *,
        state: State | None = None,
        user: int | None = None,
        token: str | None = None,
        late: bool | None = None,
        fault: bool = False,
    ) -> Step[State]:
        lane = Lane(
            at,
            self._lane.user if user is None else user,
            self._lane.token if token is None else token,
            (self._lane.late if late is None else late) and at in WATCHES_CLOCK,
        )
        if at == IDLE:
            lane = Lane()
        lanes = self._process.lanes
        lanes = (*lanes[: self._lane_number], lane, *lanes[self._lane_number + 1 :])
        to = _with_process(state or self._state, self._number, self._process._replace(lanes=lanes))
        return Step(f"{self._name} {words}", to, fault)


def _run_group(protocol: Protocol, state: State, number: int) -> Iterator[Step[State]]:
    """The gate's thread takes what waits: outcomes and questions, one of each user, in one transaction."""
    if protocol.commits_to != "gate":
        return
    process = state.processes[number]
    outcomes = [i for i, lane in enumerate(process.lanes) if lane.at.startswith(KNOWS)]
    questions = [i for i, lane in enumerate(process.lanes) if lane.at == ASKING]
    # After a lost answer the outcomes go first and alone.
    if any(process.lanes[i].at == KNOWS + NO_DOT for i in outcomes):
        questions = []
    group: list[int] = []
    users: set[int] = set()
    for i in outcomes + questions:
        key = process.lanes[i].user
        if key not in users or (not protocol.a_key_once_per_group and i in questions):
            users.add(key)
            group.append(i)
    if not group or any(locked(state, key) for key in users):
        return
    lanes = list(process.lanes)
    effects: list[Effect] = []
    for i in group:
        lane = lanes[i]
        user = state.users[lane.user]
        if lane.at == ASKING:
            at, effect, against = judge_question(protocol, user, lane)
            token = IN_UNDECIDED if effect is not None and effect.gates else lane.token
            lanes[i] = lane._replace(at=at, token=token, late=lane.late and at in WATCHES_CLOCK)
            if against:
                breach = f"{AGAINST_A_RULE}: passed the gate though {'stale' if user.over else 'suppressed'}"
                state = with_user(state, lane.user, user._replace(breach=breach))
        else:
            effect = judge_outcome(protocol, user, lane)
            lanes[i] = lane._replace(at=RECORDS + lane.at.removeprefix(KNOWS))
        if effect is not None:
            effects.append(effect)
    words = " and ".join(_what(process.lanes[i]) for i in group)
    running = Process(tuple(lanes), "open", tuple(effects))
    yield Step(f"{_name(number)}: a group of the gate runs: {words}", _with_process(state, number, running))


def _what(lane: Lane) -> str:
    if lane.at == ASKING:
        return f"the question of user {lane.user + 1}"
    return f"the outcome '{lane.at.removeprefix(KNOWS)}' of user {lane.user + 1}"


def _read_answer(state: State, number: int) -> State:
    process = state.processes[number]
    for i, lane in enumerate(process.lanes):
        if lane.at == ASKED_YES:
            state = _set_lane(state, number, i, lane._replace(at=PASSED))
        elif lane.at in (ASKED_HOLD, ASKED_LOST):
            state = _set_lane(state, number, i, Lane())
        elif lane.at == RECORDS + RETRY_THEN_REJECT:
            state = _set_lane(state, number, i, Lane(KNOWS + REJECT, lane.user))
        elif lane.at.startswith(RECORDS):
            state = _leave(state, number, i)
    return _end_group(state, number)


def _lose_answer(protocol: Protocol, state: State, number: int) -> State:
    """No answer to COMMIT: no dot; the question is read back, and outcomes stay in memory."""
    process = state.processes[number]
    for i, lane in enumerate(process.lanes):
        if lane.at in _ASKED:
            state = _read_back(protocol, state, number, i)
        elif lane.at.startswith(RECORDS):
            if protocol.outcomes_outlive_their_group:
                kept = lane._replace(at=KNOWS + lane.at.removeprefix(RECORDS))
                state = _set_lane(state, number, i, kept)
            else:
                state = _leave(state, number, i)
    return _end_group(state, number)


def _read_back(protocol: Protocol, state: State, number: int, lane_number: int) -> State:
    lane = state.processes[number].lanes[lane_number]
    if not protocol.dot_needs_answer_to_commit and lane.at == ASKED_YES:
        return _set_lane(state, number, lane_number, lane._replace(at=PASSED))
    without_clock = lane._replace(late=False)
    if protocol.read_back == "any token":
        return _set_lane(state, number, lane_number, without_clock._replace(at=KNOWS + FORCED_READY))
    if protocol.read_back == "never" or (protocol.read_back == "by token" and lane.token != IN_ROW):
        return _leave(state, number, lane_number)
    return _set_lane(state, number, lane_number, without_clock._replace(at=KNOWS + NO_DOT))


def _leave(state: State, number: int, lane_number: int) -> State:
    """The lane has nothing more to do for this user. It must not leave its own token in a row in flight."""
    lane = state.processes[number].lanes[lane_number]
    user = state.users[lane.user]
    held = lane.token == IN_ROW and user.state in ("sending", "in_doubt")
    knew_nothing = lane.at == RECORDS + DOUBT
    asked_in_vain = lane.at in (ASKED_HOLD, ASKED_LOST)
    if (held or lane.token == IN_UNDECIDED) and not knew_nothing and not asked_in_vain:
        breach = f"{NEEDLESS_DOUBT}: a living sender leaves a row in flight whose fate it knows"
        state = with_user(state, lane.user, user._replace(breach=breach))
    return _set_lane(state, number, lane_number, Lane())


def _end_group(state: State, number: int) -> State:
    return _with_process(state, number, state.processes[number]._replace(group="", effects=()))


def _set_lane(state: State, number: int, lane_number: int, lane: Lane) -> State:
    lanes = state.processes[number].lanes
    lanes = (*lanes[:lane_number], lane, *lanes[lane_number + 1 :])
    return _with_process(state, number, state.processes[number]._replace(lanes=lanes))


def _with_process(state: State, number: int, process: Process) -> State:
    processes = state.processes
    return state._replace(processes=(*processes[:number], process, *processes[number + 1 :]))


def _name(number: int) -> str:
    return f"sender {number + 1}"
