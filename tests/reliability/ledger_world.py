"""A small world around a real ledger: users who come and go, a mail server that remembers, a clock to turn.

What the server accepted stands in `World.accepts`, written when the dot is, and never read from the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from lifecycle_emails.address import address_hash, parse_recipient
from lifecycle_emails.audience import Audience
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.attempt import Passage, Record
from lifecycle_emails.ledger.gate import Gate, GateTerms
from lifecycle_emails.ledger.judging import limit_rate
from lifecycle_emails.ledger.planning import extract_cohort
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from tests.cutting_proxy import CuttingProxy
from tests.factories import IncludeFolder
from tests.integration.ledger.rows import let_time_pass, without_triggers

CAMPAIGNS = ("first_mail", "second_mail", "third_mail")
SMTP = "lifecycle_smtp"
DOT_TIMEOUT = 30
DAY, WEEK = timedelta(days=1), timedelta(days=7)
Key = tuple[str, int]
"""A campaign and a user."""


@dataclass(frozen=True)
class Accept:
    """The server took responsibility for a mail: whose, and when in the world's time."""

    campaign: str
    user: int
    at: datetime


@dataclass(frozen=True)
class Attempt:
    """A dialogue past the gate whose outcome the ledger may still hear of."""

    campaign: str
    user: int
    token: UUID
    accepted: bool


@dataclass(frozen=True)
class Reservation:
    """When, in order, a slot was reserved, and under which rules."""

    order: int
    rules: tuple[CapRule, ...]


def rules(per_day: int, per_week: int) -> tuple[CapRule, ...]:
    """The two rules of a campaign's cap."""
    return CapRule("by_day", per_day, DAY), CapRule("by_week", per_week, WEEK)


class World:
    """One ledger, one source of users, one server. Users are small numbers; people's acts are methods."""

    def __init__(self, root: Path, ledger_url: str, source_url: str) -> None:
        self.ledger_url = ledger_url
        self.ledger = psycopg.connect(ledger_url, autocommit=True)
        self.source = psycopg.connect(source_url, autocommit=True)
        include = IncludeFolder(root)
        self.campaigns = {name: make_campaign(name) for name in CAMPAIGNS}
        self.audience = Audience.load(include.path, make_campaign("welcome"))
        self.rules = dict.fromkeys(CAMPAIGNS, rules(1, 2))
        self.accepts: list[Accept] = []
        self.attempts: list[Attempt] = []
        self.reservations: dict[Key, Reservation] = {}
        self.seen: set[Key] = set()
        """Whom an extract found in its audience."""
        self.said_not_sent: set[Key] = set()
        self._passed_hours = 0
        self._time_passed = timedelta()
        self._order = 0
        (self._hash_key,) = self.ledger.execute(query("address_hash_key")).fetchone() or (b"",)
        self._gates: dict[str, Gate] = {}

    def close(self) -> None:
        """Close what was opened."""
        for gate in self._gates.values():
            gate.close(timeout=10)
        self.ledger.close()
        self.source.close()

    # --- the world's clock --------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The world's time: the real one, and what was let pass beside it."""
        return datetime.now(UTC) + self._time_passed

    def let_pass(self, time: timedelta) -> None:
        """Make ledger and source older: hours, and dates with every full day."""
        let_time_pass(self.ledger, time)
        self.source.execute("UPDATE users SET created_at = created_at - %s", (time,))
        before = self._time_passed // DAY
        self._time_passed += time
        days = self._time_passed // DAY - before
        if days:
            self._let_dates_pass(days)

    def _let_dates_pass(self, days: int) -> None:
        with without_triggers(self.ledger):
            columns = self.ledger.execute(
                "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
                " USING (table_schema, table_name) WHERE table_schema = 'lifecycle'"
                " AND table_type = 'BASE TABLE' AND data_type = 'date'"
            ).fetchall()
            for table, column in columns:
                for step in (-10_000, 10_000 - days):  # in one step, a day would meet its neighbour's key
                    self.ledger.execute(f"UPDATE lifecycle.{table} SET {column} = {column} + %s", (step,))

    # --- users --------------------------------------------------------------------------------------------------

    def put_user(self, user: int, days_ago: int, *, address: str = "") -> None:
        """The user was created so many days ago; who exists is corrected."""
        created_at = datetime.combine(
            datetime.now(UTC).date() - timedelta(days=days_ago), datetime.min.time(), UTC
        )
        self.source.execute(
            "INSERT INTO users (user_id, email, full_name, created_at) VALUES (%s, %s, 'Ada Example', %s)"
            " ON CONFLICT (user_id) DO UPDATE SET created_at = excluded.created_at, email = excluded.email",
            (user, address or f"user{user}@example.com", created_at + timedelta(hours=12)),
        )

    def hash_of(self, user: int) -> bytes:
        """The keyed hash of the user's address now; of the usual one for a user who is gone."""
        row = self.source.execute("SELECT email FROM users WHERE user_id = %s", (user,)).fetchone()
        return address_hash(self._hash_key, parse_recipient(row[0] if row else f"user{user}@example.com"))

    # --- steps of a daily run -----------------------------------------------------------------------------------

    def extract(self, name: str, days_ago: int, *, with_earlier: bool) -> tuple[date, ...]:
        """Plan a cohort; whoever the audience returns is remembered."""
        cohort_date = datetime.now(UTC).date() - timedelta(days=days_ago)
        campaign = self.campaigns[name]
        extracted = extract_cohort(
            self.ledger, self.source, campaign, self.audience, cohort_date, with_earlier=with_earlier
        )
        windows = self.ledger.execute(
            "SELECT cohort_date, window_start, window_end FROM lifecycle.cohorts"
            " WHERE campaign = %s AND cohort_date = ANY (%s)",
            (name, list(extracted.cohort_dates)),
        ).fetchall()
        for day, *window in windows:
            found = self.source.execute(
                "SELECT user_id FROM users WHERE created_at >= %s AND created_at < %s", window
            ).fetchall()
            self.seen |= {(name, user) for (user,) in found}
            self._check_found(name, day, [str(user) for (user,) in found])
        return extracted.cohort_dates

    def _check_found(self, name: str, cohort_date: date, users: list[str]) -> None:
        """Whom the source returns for a planned cohort stands in it and has not left, or may have the mail already."""
        lost = self.ledger.execute(
            "SELECT user_id, cohort_date, state::text, held_reason::text FROM lifecycle.sends"
            " WHERE campaign = %s AND user_id = ANY (%s) AND state IN ('planned', 'held', 'ready')"
            " AND (cohort_date <> %s OR held_reason = 'left_audience')",
            (name, users, cohort_date),
        ).fetchall()
        assert not lost, f"the source returns them for {cohort_date}: {lost}"

    def limit(self, name: str, dates: Sequence[date]) -> None:
        """Reserve slots, and note the order and the rules under which each was reserved."""
        before = self.users_in(name, "ready")
        limit_rate(
            self.ledger, self.campaigns[name], self.rules[name], dates,
            callbacks=("notify",), run="a run", max_groups=1024,
        )  # fmt: skip
        for user in self.users_in(name, "ready") - before:
            self._order += 1
            self.reservations[name, user] = Reservation(self._order, self.rules[name])

    def cohort_dates(self, name: str) -> list[date]:
        """Every cohort of the campaign."""
        rows = self.ledger.execute(
            "SELECT cohort_date FROM lifecycle.cohorts WHERE campaign = %s ORDER BY 1", (name,)
        )
        return [row[0] for row in rows]

    def users_in(self, name: str, state: str) -> set[int]:
        """Users of a campaign in one state."""
        rows = self.ledger.execute(
            "SELECT user_id FROM lifecycle.sends WHERE campaign = %s AND state::text = %s", (name, state)
        )
        return {int(row[0]) for row in rows}

    # --- the gate and the server --------------------------------------------------------------------------------

    def ask(self, name: str, user: int) -> tuple[UUID, Passage]:
        """A worker that may be late, or the second at it, asks for this user."""
        token = uuid4()
        return token, self.gate(name).ask(str(user), token, self.hash_of(user))

    def ask_and_lose_the_answer(self, name: str, user: int) -> Passage:
        """A worker asks, and the connection dies before the database's answer."""
        at = psycopg.conninfo.conninfo_to_dict(self.ledger_url)
        with CuttingProxy(int(at["port"] or 0)) as proxy:
            url = psycopg.conninfo.make_conninfo(self.ledger_url, port=proxy.port)
            gate = Gate(lambda: psycopg.connect(url), self._terms(name))
            proxy.cut_before_next_answer()
            passage = gate.ask(str(user), uuid4(), self.hash_of(user))
            assert gate.flush(timeout=30)
            assert gate.close(timeout=30)
        return passage

    def accept(self, name: str, user: int) -> None:
        """The server has read the dot and takes the mail."""
        self.accepts.append(Accept(name, user, self.now))

    def record(self, name: str, *records: Record) -> None:
        """The worker tells the ledger, one group after the other."""
        gate = self.gate(name)
        for record in records:
            gate.record(record)
        assert gate.flush(timeout=30)
        assert gate.failure is None

    def gate(self, name: str) -> Gate:
        """The campaign's gate, opened when first asked for."""
        if name not in self._gates:
            self._gates[name] = Gate(lambda: psycopg.connect(self.ledger_url), self._terms(name))
        return self._gates[name]

    def _terms(self, name: str) -> GateTerms:
        return GateTerms(
            campaign_id=name, batches=(), holder=uuid4(), smtp_conn_id=SMTP, template_version="v1",
            dot_timeout=DOT_TIMEOUT,
        )  # fmt: skip

    def passed_in_time(self, name: str, user: int) -> bool:
        """Whether a row that passed was before its cohort's deadline."""
        row = self.ledger.execute(
            "SELECT s.gate_at < c.not_after FROM lifecycle.sends AS s JOIN lifecycle.cohorts AS c"
            " USING (campaign, cohort_date) WHERE s.campaign = %s AND s.user_id = %s",
            (name, str(user)),
        ).fetchone()
        return row == (True,)

    # --- a person -----------------------------------------------------------------------------------------------

    def doubts_to_settle(self) -> list[Key]:
        """Doubts that a person may settle: no answer can come any more."""
        rows = self.ledger.execute(
            "SELECT campaign, user_id FROM lifecycle.sends WHERE state = 'in_doubt' AND answer_due < now() ORDER BY 1, 2"
        )
        return [(campaign, int(user)) for campaign, user in rows]

    def settle(self, name: str, user: int) -> None:
        """A person looks into the server's log and says what it says; the worker is gone by then."""
        sent = any((accept.campaign, accept.user) == (name, user) for accept in self.accepts)
        verdict = SettleAs.SENT if sent else SettleAs.SEND_AGAIN
        settle(self.ledger, name, Which([str(user)]), verdict, reason="the server's log says so", actor="ada")
        self.attempts = [a for a in self.attempts if (a.campaign, a.user) != (name, user)]

    # --- what must hold at any time -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError where a promise is broken."""
        rows = {
            (campaign, int(user)): (state, reason, detail)
            for campaign, user, state, reason, detail in self.ledger.execute(
                "SELECT campaign, user_id, state::text, held_reason::text, detail FROM lifecycle.sends"
            )
        }
        self._check_copies(rows)
        self._check_sums(rows)
        self._check_reasons(rows)
        self._check_closed_cohorts()
        self._check_caps()

    def _check_copies(self, rows: dict[Key, tuple[str, str | None, str | None]]) -> None:
        copies = Counter((accept.campaign, accept.user) for accept in self.accepts)
        assert max(copies.values(), default=0) <= 1, copies
        free = {key for key in copies if rows[key][0] not in ("sending", "in_doubt", "sent")}
        assert not free, f"accepted, and free to be sent again: {free}"
        invented = {key for key, row in rows.items() if row[0] == "sent"} - set(copies)
        assert not invented, f"sent, and never accepted: {invented}"

    def _check_sums(self, rows: dict[Key, tuple[str, str | None, str | None]]) -> None:
        assert self.seen == set(rows), f"users without a row, or rows without a user: {self.seen ^ set(rows)}"
        without_row = self.ledger.execute(
            "SELECT count(*) FROM lifecycle.cohorts WHERE audience_without_row <> 0"
        ).fetchone()
        assert without_row == (0,)
        for name in CAMPAIGNS:
            sums = self.ledger.execute(
                query("states_by_cohort"), {"campaign": name, "cohort_dates": self.cohort_dates(name)}
            )
            assert sum(row[3] for row in sums) == sum(key[0] == name for key in rows)

    def _check_reasons(self, rows: dict[Key, tuple[str, str | None, str | None]]) -> None:
        unexplained = {
            key
            for key, (state, reason, detail) in rows.items()
            if (state == "held" and not (reason and detail))
            or (state in ("rejected", "in_doubt") and not detail)
        }
        assert not unexplained, f"without a reason: {unexplained}"

    def _check_closed_cohorts(self) -> None:
        """Maintenance looks at the open cohorts only: whoever is still to be dealt with must be in one."""
        left_behind = self.ledger.execute(
            "SELECT s.campaign, s.user_id, s.state::text FROM lifecycle.sends AS s JOIN lifecycle.cohorts AS c"
            " USING (campaign, cohort_date)"
            " WHERE c.closed_at IS NOT NULL AND s.state IN ('planned', 'ready', 'sending')"
        ).fetchall()
        assert not left_behind, f"in a closed cohort: {left_behind}"

    def _check_caps(self) -> None:
        """Each rule over what was accepted: whoever was reserved first was counted by whoever came later."""
        for last in self.accepts:
            reserved = self.reservations[last.campaign, last.user]
            for rule in reserved.rules:
                counted = [
                    accept
                    for accept in self.accepts
                    if accept.user == last.user
                    and self.reservations[accept.campaign, accept.user].order <= reserved.order
                    and accept.at > last.at - rule.window
                ]
                assert len(counted) <= rule.max_sends, f"{rule} exceeded: {counted}"


def make_campaign(name: str, **changes: Any) -> Campaign:
    """A campaign of the world."""
    values = {
        "id": name, "schedule": "0 6 * * *", "timezone": "UTC", "offset_days": 4, "audience": "users.sql",
        "from": "The team <hello@example.com>", "batch_size": 2, "max_lateness_days": 3, **changes,
    }  # fmt: skip
    return Campaign.model_validate(values)


MakeWorld = Callable[[], World]
