"""The protocol as a set of decisions, so that a mutant of it is the same protocol with one decision changed.

The values of `Protocol()` are what the package does. Must not know how the steps are made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

TWO_COPIES = "two copies"
LOST = "silently lost"
STUCK = "stuck"
UNTRUE = "untrue"
NEEDLESS_DOUBT = "doubt without a cause"
NOT_FINAL = "not final"
AGAINST_A_RULE = "against a rule"


@dataclass(frozen=True)
class Protocol:
    """One way of sending; ``explanation`` says in a sentence what is done, or done wrong."""

    name: str
    explanation: str
    fails_by: str = ""
    """What the search is expected to find, '' where nothing; it looks for two copies first where they are."""

    commits_to: str = "gate"
    """What stands between the body and the dot: the gate, nothing, or a row lock held until the answer."""
    gate_writes: str = "sending"
    gate_needs_ready: bool = True
    gate_judges_again: bool = True
    """Suppression and deadline are looked at once more, in the gate's own statement."""
    token_per_dialogue: bool = True
    """Else one that several attempts share: the Airflow try, the host, the pid."""
    dot_needs_answer_to_commit: bool = True
    ten_seconds: bool = True
    """The dot is written within ten seconds of asking, or not at all."""
    read_back: str = "by key"
    """After a lost answer to COMMIT: ``by key`` under a lock, ``by token``, ``any token``, or ``never``."""

    outcome_needs_token: bool = True
    outcome_needs_flight: bool = True
    """Outcomes are written only over `sending` and `in_doubt`."""
    outcome_settles_doubt: bool = True
    """A late answer is written over `in_doubt` too."""
    outcomes_outlive_their_group: bool = True
    rejection_needs_ready: bool = True
    silence_is: str = "in_doubt"
    """What no readable answer to the dot is recorded as."""
    a_key_once_per_group: bool = True

    sweep_writes: str = "in_doubt"
    sweep_needs_due: bool = True
    doubt_resends_itself: bool = False
    settling_needs_due: bool = True
    settling_needs_dead_process: bool = True
    evidence: str = "provider"
    """Before "send again": the ``provider`` says that it never had the mail; or its log has ``no line`` of it
    yet; or ``none`` is asked for. ``nobody asks``: doubts are never settled."""
    clock_runs_before_dot: bool = True
    """Time may pass between the look at the clock and the dot: a process may be frozen just there."""


REAL = Protocol("real", "the protocol of docs/ledger.md")

CARELESS = (
    Protocol(
        "check-send-record",
        "looks whether the user was mailed, sends, then writes it down",
        TWO_COPIES,
        commits_to="nothing",
        outcome_needs_token=False,
        outcome_needs_flight=False,
        silence_is="retry",
    ),
    Protocol(
        "expire-and-claim-again",
        "claims the row for a time; when the claim expires, the next worker takes it",
        TWO_COPIES,
        ten_seconds=False,
        sweep_writes="ready",
        silence_is="retry",
    ),
    Protocol(
        "lock held over the send",
        "SELECT .. FOR UPDATE, send, write it down, COMMIT",
        TWO_COPIES,
        commits_to="row lock",
        outcome_needs_token=False,
        outcome_needs_flight=False,
        silence_is="retry",
    ),
    Protocol(
        "record-then-send",
        "writes 'sent' first, so that nobody is mailed twice",
        LOST,
        gate_writes="sent",
        silence_is="retry",
    ),
)

MUTANTS = (
    Protocol(
        "shared token",
        "the token is the Airflow try, not a uuid per dialogue",
        TWO_COPIES,
        token_per_dialogue=False,
    ),
    Protocol(
        "gate takes any state", "the gate's UPDATE lacks state = 'ready'", TWO_COPIES, gate_needs_ready=False
    ),
    Protocol(
        "gate trusts the filter", "the gate does not judge again", AGAINST_A_RULE, gate_judges_again=False
    ),
    Protocol(
        "dot on lost COMMIT",
        "the dot is written when the rows came back, without COMMIT's answer",
        TWO_COPIES,
        dot_needs_answer_to_commit=False,
    ),
    Protocol(
        "read back by token",
        "after a lost COMMIT, WHERE attempt = mine, which waits for nobody",
        NEEDLESS_DOUBT,
        read_back="by token",
    ),
    Protocol(
        "read back any token",
        "after a lost COMMIT the row goes back to ready, whoever's token it carries",
        TWO_COPIES,
        read_back="any token",
    ),
    Protocol("never read back", "a lost COMMIT is left to the sweep", NEEDLESS_DOUBT, read_back="never"),
    Protocol(
        "no look at the clock",
        "a process that was frozen after the gate writes its dot",
        TWO_COPIES,
        ten_seconds=False,
        settling_needs_dead_process=False,
        clock_runs_before_dot=False,
    ),
    Protocol(
        "outcome without token", "outcomes are written by key alone", TWO_COPIES, outcome_needs_token=False
    ),
    Protocol(
        "outcome over any state", "outcomes are written over any state", NOT_FINAL, outcome_needs_flight=False
    ),
    Protocol(
        "late answer dropped",
        "outcomes are written over sending only",
        NEEDLESS_DOUBT,
        outcome_settles_doubt=False,
    ),
    Protocol(
        "outcomes lost with their group",
        "a group that fails takes its outcomes with it",
        NEEDLESS_DOUBT,
        outcomes_outlive_their_group=False,
    ),
    Protocol(
        "rejection over any state",
        "evidence about a recipient is written over rows in flight",
        UNTRUE,
        rejection_needs_ready=False,
    ),
    Protocol(
        "silence is a refusal", "no answer to the dot counts as not accepted", TWO_COPIES, silence_is="retry"
    ),
    Protocol("silence is success", "no answer to the dot counts as accepted", LOST, silence_is="sent"),
    Protocol(
        "a key twice in a group",
        "two lanes' questions about one user share a group",
        TWO_COPIES,
        a_key_once_per_group=False,
    ),
    Protocol("sweep to ready", "what has no answer in time is ready again", TWO_COPIES, sweep_writes="ready"),
    Protocol(
        "sweep before answer_due",
        "sending -> in_doubt at any time, and a person takes that for the end of the attempt",
        TWO_COPIES,
        sweep_needs_due=False,
        settling_needs_due=False,
        settling_needs_dead_process=False,
        clock_runs_before_dot=False,
    ),
    Protocol("no sweep", "a row whose sender died stays in sending", STUCK, sweep_writes=""),
    Protocol(
        "doubts resent", "maintenance puts doubts back to planned", TWO_COPIES, doubt_resends_itself=True
    ),
    Protocol(
        "settled without evidence",
        "a person sends again without asking the provider",
        TWO_COPIES,
        evidence="none",
    ),
    Protocol(
        "no line in the log",
        "a person sends again since the provider's log has no line about it yet",
        TWO_COPIES,
        evidence="no line",
    ),
    Protocol("doubts without a person", "nobody may settle a doubt", STUCK, evidence="nobody asks"),
)

LIMIT = Protocol(
    "the one limit",
    "a person sends again while the old process is only frozen, between its look at the clock and the dot",
    TWO_COPIES,
    settling_needs_dead_process=False,
)
"""Fails, and only there: see `LIMIT_WITHOUT_FREEZE`."""

LIMIT_WITHOUT_FREEZE = Protocol(
    "the one limit, not frozen there",
    "the same person, but no time passes between the look at the clock and the dot",
    settling_needs_dead_process=False,
    clock_runs_before_dot=False,
)

STANDS_BEHIND = (
    Protocol(
        "settled before answer_due",
        "answer_due is not looked at when a doubt is settled: the sweep has waited for it, and a sender that"
        " says in_doubt by itself has written its dot",
        settling_needs_due=False,
        settling_needs_dead_process=False,
        clock_runs_before_dot=False,
    ),
    Protocol(
        "late dot, dead process",
        "no look at the clock before the dot: whoever settles has waited for the end of the process",
        ten_seconds=False,
    ),
)
"""One protection taken away, and nothing breaks: another stands behind it. The explanation says which."""
