"""Whatever happens, in whatever order: the ledger's promises hold after every step, on a real Postgres.

Hypothesis makes up what happens. `--hypothesis-profile=long` (tests/conftest.py) plays for longer, and something else
every time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lifecycle_emails.ledger.attempt import Passage, Record, RecordedAs
from lifecycle_emails.ledger.judged_cohorts import RunToTry, judged_cohorts
from lifecycle_emails.ledger.judging import filter_ledger
from lifecycle_emails.ledger.orders import halt, resume, suppress, unsuppress
from lifecycle_emails.ledger.provider import note_probe, stop_provider
from lifecycle_emails.ledger.reconciliation import reconcile
from lifecycle_emails.ledger.upkeep import keep_up, sweep
from local_stack.postgres import PostgresServer
from tests.reliability.ledger_world import CAMPAIGNS, SMTP, Attempt, World, make_campaign, rules

USERS = st.integers(1, 4)
WHOM = st.integers(0, 15)
"""Who is asked for: mostly somebody who is ready, sometimes anybody (see `_whom`)."""
NAMES = st.sampled_from(CAMPAIGNS)
DAYS_AGO = st.integers(3, 6)
SOME_NAME = st.none() | NAMES

_numbers = count(1)


class LedgerMachine(RuleBasedStateMachine):
    """What may happen to a ledger, one thing after another."""

    server: PostgresServer
    ledger_template: str
    source_template: str

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        root = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        ledger = self._open.enter_context(self._database(self.ledger_template))
        source = self._open.enter_context(self._database(self.source_template))
        self.world = World(root, ledger, source)
        self._open.callback(self.world.close)
        self._suppressed: set[tuple[int | str, str | None]] = set()
        self._halted: set[str | None] = set()
        self._provider_stopped = False

    @contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = f"stateful_{next(_numbers)}"
        self.server.create_database(name, template=template)
        try:
            yield self.server.url(name)
        finally:
            self.server.drop_database(name)

    @initialize(days=st.lists(DAYS_AGO, min_size=2, max_size=4), per_day=st.integers(1, 2))
    def begin(self, days: list[int], per_day: int) -> None:
        for user, days_ago in enumerate(days, start=1):
            self.world.put_user(user, days_ago)
        for name in CAMPAIGNS:
            self.world.rules[name] = rules(per_day, 2)
            for days_ago in sorted(set(days), reverse=True):
                self.run_is_cleared_or_runs_for_the_first_time(name, days_ago, with_earlier=False)

    # --- users and the files of a campaign ----------------------------------------------------------------------

    @rule(user=USERS, days_ago=DAYS_AGO)
    def user_arrives_or_created_at_is_corrected(self, user: int, days_ago: int) -> None:
        self.world.put_user(user, days_ago)

    @rule(user=USERS)
    def user_departs(self, user: int) -> None:
        self.world.source.execute("DELETE FROM users WHERE user_id = %s", (user,))

    @rule(
        name=NAMES,
        timezone=st.sampled_from(["UTC", "Pacific/Auckland", "America/Lima"]),
        offset_days=st.integers(3, 5),
        max_lateness_days=st.integers(1, 4),
        on_cap=st.sampled_from(["defer", "drop"]),
    )
    def campaign_is_edited(self, name: str, **changes: object) -> None:
        self.world.campaigns[name] = make_campaign(name, **changes)

    @rule(name=NAMES, per_day=st.integers(1, 2), per_week=st.integers(1, 3))
    def cap_is_edited(self, name: str, per_day: int, per_week: int) -> None:
        self.world.rules[name] = rules(per_day, per_week)

    # --- runs, whole and by halves, again and again -------------------------------------------------------------

    @rule(name=NAMES, days_ago=DAYS_AGO, with_earlier=st.booleans())
    def cohort_is_extracted(self, name: str, days_ago: int, with_earlier: bool) -> None:
        self.world.extract(name, days_ago, with_earlier=with_earlier)

    @rule(name=NAMES)
    def ledger_is_filtered(self, name: str) -> None:
        filter_ledger(self.world.ledger, self.world.campaigns[name], self.world.cohort_dates(name))

    @rule(name=NAMES)
    def rate_is_limited(self, name: str) -> None:
        if dates := self.world.cohort_dates(name):
            self.world.limit(name, dates)

    @rule(name=NAMES, days_ago=DAYS_AGO, with_earlier=st.booleans())
    def run_is_cleared_or_runs_for_the_first_time(self, name: str, days_ago: int, with_earlier: bool) -> None:
        dates = self.world.extract(name, days_ago, with_earlier=with_earlier)
        filter_ledger(self.world.ledger, self.world.campaigns[name], dates)
        self.world.limit(name, dates)

    @rule(name=NAMES, days_ago=DAYS_AGO)
    def run_is_tried_dry(self, name: str, days_ago: int) -> None:
        world = self.world
        before = self._rows()
        (cohort_date,) = world.ledger.execute("SELECT current_date - %s", (days_ago,)).fetchone() or ()
        asked = RunToTry(
            world.campaigns[name], world.audience, tuple(world.rules[name]), cohort_date, with_earlier=True
        )
        with judged_cohorts(world.ledger, world.source, [asked]):
            pass
        assert self._rows() == before

    @rule(name=NAMES)
    def run_is_reconciled(self, name: str) -> None:
        reconcile(self.world.ledger, self.world.campaigns[name], self.world.cohort_dates(name))

    @rule()
    def maintenance_runs(self) -> None:
        keep_up(self.world.ledger, self.world.campaigns.values(), now=self.world.now)

    @rule(name=NAMES)
    def overdue_answers_are_swept(self, name: str) -> None:
        sweep(self.world.ledger, name, self.world.cohort_dates(name))

    # --- sending: a worker asks for anybody, ready or not, for it may be late or the second ---------------------

    def _whom(self, whom: int) -> tuple[str, int]:
        """Somebody who is ready; one time in four, or where nobody is, anybody at all."""
        ready = [(name, user) for name in CAMPAIGNS for user in sorted(self.world.users_in(name, "ready"))]
        anybody = [(name, user) for name in CAMPAIGNS for user in range(1, 5)]
        some = ready if ready and whom % 4 else anybody
        return some[whom % len(some)]

    @rule(whom=WHOM, reason=st.sampled_from(["invalid_address", "render_failed", "left_audience"]))
    def worker_holds_before_the_gate(self, whom: int, reason: str) -> None:
        name, user = self._whom(whom)
        self.world.record(
            name, Record(str(user), None, RecordedAs.HELD, held_reason=reason, detail="a reason")
        )

    @rule(whom=WHOM)
    def server_refuses_before_the_dot(self, whom: int) -> None:
        name, user = self._whom(whom)
        self.world.record(name, Record(str(user), None, RecordedAs.RETRY, detail="rcpt: 451"))

    @rule(whom=WHOM)
    def server_accepts(self, whom: int) -> None:
        if attempt := self._pass(whom, accepted=True):
            self._record(attempt, RecordedAs.SENT)

    @rule(whom=WHOM, recorded_as=st.sampled_from([RecordedAs.RETRY, RecordedAs.NO_DOT]))
    def server_does_not_accept(self, whom: int, recorded_as: RecordedAs) -> None:
        if attempt := self._pass(whom, accepted=False):
            self._record(attempt, recorded_as)

    @rule(whom=WHOM)
    def server_rejects_the_recipient(self, whom: int) -> None:
        if attempt := self._pass(whom, accepted=False):
            self._record(attempt, RecordedAs.RETRY)
            proven = Record(str(attempt.user), None, RecordedAs.REJECTED, detail="dot: 550 5.1.1")
            self.world.record(attempt.campaign, proven)

    @rule(whom=WHOM, accepted=st.booleans())
    def answer_to_the_dot_is_lost(self, whom: int, accepted: bool) -> None:
        if attempt := self._pass(whom, accepted=accepted):
            self._record(attempt, RecordedAs.IN_DOUBT)
            self.world.attempts.append(attempt)

    @rule(whom=WHOM, accepted=st.booleans())
    def worker_dies_or_freezes_after_the_dot(self, whom: int, accepted: bool) -> None:
        if attempt := self._pass(whom, accepted=accepted):
            self.world.attempts.append(attempt)

    @rule(answer_is_lost=st.booleans())
    def everybody_ready_is_mailed(self, answer_is_lost: bool) -> None:
        for name in CAMPAIGNS:
            self.rate_is_limited(name)
            for user in sorted(self.world.users_in(name, "ready")):
                if attempt := self._ask(name, user, accepted=True):
                    self._record(attempt, RecordedAs.IN_DOUBT if answer_is_lost else RecordedAs.SENT)

    @rule(whom=WHOM)
    def worker_dies_between_gate_and_dot(self, whom: int) -> None:
        self._pass(whom, accepted=False)

    @rule(whom=WHOM)
    def answer_to_commit_is_lost(self, whom: int) -> None:
        # no dot is written, and the worker reads its row back
        assert self.world.ask_and_lose_the_answer(*self._whom(whom)) is Passage.NOT_COMMITTED

    @rule(
        which=WHOM,
        refusal=st.sampled_from(
            [RecordedAs.RETRY, RecordedAs.REJECTED, RecordedAs.IN_DOUBT, RecordedAs.NO_DOT]
        ),
    )
    def late_answer_is_recorded(self, which: int, refusal: RecordedAs) -> None:
        if self.world.attempts:
            attempt = self.world.attempts.pop(which % len(self.world.attempts))
            self._record(attempt, RecordedAs.SENT if attempt.accepted else refusal)

    @rule(whom=WHOM, refusal=st.sampled_from([RecordedAs.RETRY, RecordedAs.NO_DOT]))
    def refusal_is_recorded_when_the_cohort_has_closed(self, whom: int, refusal: RecordedAs) -> None:
        if attempt := self._pass(whom, accepted=False):
            self.world.let_pass(timedelta(days=8))
            self.maintenance_runs()
            self._record(attempt, refusal)

    @rule(whom=WHOM, refusal=st.sampled_from([RecordedAs.RETRY, RecordedAs.NO_DOT]), days_ago=DAYS_AGO)
    def created_at_is_corrected_after_a_refusal(self, whom: int, refusal: RecordedAs, days_ago: int) -> None:
        if attempt := self._pass(whom, accepted=False):
            self._record(attempt, refusal)
            self.world.put_user(attempt.user, days_ago)
            self.world.extract(attempt.campaign, days_ago, with_earlier=True)

    def _pass(self, whom: int, *, accepted: bool) -> Attempt | None:
        return self._ask(*self._whom(whom), accepted=accepted)

    def _ask(self, name: str, user: int, *, accepted: bool) -> Attempt | None:
        """Ask the gate, check that it was right to let pass, and let the server accept the mail or not."""
        token, passage = self.world.ask(name, user)
        if passage is not Passage.PASSED:
            return None
        assert self.world.passed_in_time(name, user)
        assert not self._is_stopped(name)
        assert not self._is_suppressed(name, user)
        if accepted:
            self.world.accept(name, user)
        return Attempt(name, user, token, accepted)

    def _record(self, attempt: Attempt, recorded_as: RecordedAs) -> None:
        self.world.record(
            attempt.campaign,
            Record(str(attempt.user), attempt.token, recorded_as, detail="what the server said"),
        )

    # --- people -------------------------------------------------------------------------------------------------

    @rule(user=USERS, name=SOME_NAME, by_address=st.booleans())
    def user_is_suppressed(self, user: int, name: str | None, by_address: bool) -> None:
        whom = {"address": f"User{user}@example.com"} if by_address else {"user_id": str(user)}
        suppress(self.world.ledger, **whom, campaign_id=name, reason="asked for it")
        self._suppressed.add((f"user{user}" if by_address else user, name))

    @rule(user=USERS, name=SOME_NAME, by_address=st.booleans())
    def user_is_unsuppressed(self, user: int, name: str | None, by_address: bool) -> None:
        whom = {"address": f"user{user}@EXAMPLE.com"} if by_address else {"user_id": str(user)}
        unsuppress(self.world.ledger, **whom, campaign_id=name, reason="asked for it")
        self._suppressed.discard((f"user{user}" if by_address else user, name))

    def _is_suppressed(self, name: str, user: int) -> bool:
        return any(
            (who, where) in self._suppressed for who in (user, f"user{user}") for where in (name, None)
        )

    @rule(name=SOME_NAME)
    def sending_is_halted(self, name: str | None) -> None:
        halt(self.world.ledger, campaign_id=name, reason="wrong template")
        self._halted.add(name)

    @rule(name=SOME_NAME)
    def sending_is_resumed(self, name: str | None) -> None:
        resume(self.world.ledger, campaign_id=name, reason="mended")
        self._halted.discard(name)

    @rule()
    def provider_is_stopped(self) -> None:
        stop_provider(self.world.ledger, SMTP, "20 mails in a row were refused")
        self._provider_stopped = True

    @rule(accepted=st.booleans())
    def provider_is_probed(self, accepted: bool) -> None:
        note_probe(self.world.ledger, SMTP, accepted=accepted)
        self._provider_stopped = self._provider_stopped and not accepted

    def _is_stopped(self, name: str) -> bool:
        return bool(self._halted & {name, None}) or self._provider_stopped

    @rule(which=st.integers(0, 7))
    def person_settles_a_doubt(self, which: int) -> None:
        if doubts := self.world.doubts_to_settle():
            self.world.settle(*doubts[which % len(doubts)])

    # --- time ---------------------------------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([1, 3, 10, 61]))
    def minutes_pass(self, minutes: int) -> None:
        self.world.let_pass(timedelta(minutes=minutes))

    @rule(hours=st.sampled_from([5, 13, 25, 49]))
    def hours_and_days_pass(self, hours: int) -> None:
        self.world.let_pass(timedelta(hours=hours))

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """In the end nothing is stuck: once every deadline is past, all is final or held, in doubt at most."""
        try:
            self.world.let_pass(timedelta(days=15))
            keep_up(self.world.ledger, (), now=self.world.now)
            self.world.check()
            assert {state for *_, state in self._rows()} <= {"held", "sent", "rejected", "in_doubt"}
        finally:
            self._open.close()

    def _rows(self) -> list[tuple[object, ...]]:
        return self.world.ledger.execute(
            "SELECT user_id, campaign, cohort_date, held_reason::text, state::text FROM lifecycle.sends ORDER BY 1, 2"
        ).fetchall()


def test_ledger_keeps_its_promises_whatever_happens(
    postgres_server: PostgresServer, ledger_template: str, source_template: str
) -> None:
    LedgerMachine.server = postgres_server
    LedgerMachine.ledger_template = ledger_template
    LedgerMachine.source_template = source_template
    run_state_machine_as_test(LedgerMachine, settings=_settings())


def _settings() -> settings:
    if settings.get_current_profile_name() == "long":
        return settings.get_profile("long")
    return settings(
        derandomize=True, database=None, deadline=None, max_examples=10, stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
