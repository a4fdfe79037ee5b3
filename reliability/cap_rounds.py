"""Race the frequency cap: 16 connections reserve at once, and exactly the allowed number may win.

Each round has users of its own with a past of their own; what the cap allows them is computed here from that
past, apart from the ledger. The rounds go through `limit_rate` itself, in every isolation level that a server
may default to, straight to PostgreSQL and through PgBouncer. A careless limiter (count, then reserve, without
a lock) runs in the same harness and must let more through, or the harness shows nothing.

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import psycopg

from lifecycle_emails.campaign import Campaign
from lifecycle_emails.frequency_cap import CapRule
from lifecycle_emails.ledger.judging import limit_rate
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.session import LedgerConnection, connect_to_ledger
from local_stack.postgres import PostgresServer, temporary_server
from reliability.pgbouncer import INSTALL, PgBouncer, pgbouncer_program, running_pgbouncer

CONNECTIONS = 16
SHARED_CONNECTIONS = 8
"""Server connections behind PgBouncer: fewer than clients, so that transactions of one land on several."""
ISOLATIONS = ("read committed", "repeatable read", "serializable")
FIRST_DAY = date(2026, 1, 1)
EARLIER_CAMPAIGNS = 6
PAST = {"2 hours": (True, True), "3 days": (False, True), "8 days": (False, False)}
"""Ages of earlier sends, and whether they fall into the window of a day and of a week."""

Limiter = Callable[[LedgerConnection, Campaign, Sequence[CapRule], date], None]


@dataclass(frozen=True)
class Configuration:
    """Who races for what: ``route`` is how the connections reach the database."""

    limiter: str
    route: str
    isolation: str
    users: int
    campaigns: int


@dataclass
class Tally:
    """Rounds raced and reservations beyond (``over``) and short of (``under``) what the cap allows."""

    rounds: int = 0
    over: int = 0
    under: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Round:
    """One race: the rules in force, and how many reservations each user may get."""

    day: date
    rules: tuple[CapRule, ...]
    allowed: dict[str, int]
    earlier: list[tuple[str, str, str, str]] = field(repr=False)
    """(user, campaign, state, age) of sends before the race."""


def careful(ledger: LedgerConnection, campaign: Campaign, rules: Sequence[CapRule], day: date) -> None:
    """The package's own limiter."""
    limit_rate(ledger, campaign, rules, [day], callbacks=("notify",), run="a race", max_groups=1024)


def careless(ledger: LedgerConnection, campaign: Campaign, rules: Sequence[CapRule], day: date) -> None:
    """How a limiter is often written: count, then reserve, each statement right by itself."""
    with ledger.transaction():
        planned = ledger.execute(
            "SELECT user_id FROM lifecycle.sends"
            " WHERE campaign = %s AND cohort_date = %s AND state = 'planned'",
            (campaign.id, day),
        ).fetchall()
        for (user_id,) in planned:
            free = all(
                ledger.execute(
                    "SELECT count(*) < %s FROM lifecycle.cap_slots"
                    " WHERE user_id = %s AND slot_at > now() - %s",
                    (rule.max_sends, user_id, rule.window),
                ).fetchall()
                == [(True,)]
                for rule in rules
            )
            if free:
                ledger.execute(
                    "UPDATE lifecycle.sends SET state = 'ready', ready_at = now()"
                    " WHERE user_id = %s AND campaign = %s AND state = 'planned'",
                    (user_id, campaign.id),
                )


_stopping = threading.Event()
"""Set by a signal: the races under way are finished, and the figures tell how many there were."""

LIMITERS: dict[str, Limiter] = {"limit_rate": careful, "count, then reserve": careless}


def configurations(*, pooled: bool) -> Iterator[Configuration]:
    """Every race of the package's own limiter."""
    routes = ("direct", "PgBouncer") if pooled else ("direct",)
    for route, isolation, users, campaigns in itertools.product(
        routes, ISOLATIONS, (1, 25), (1, CONNECTIONS)
    ):
        yield Configuration("limit_rate", route, isolation, users, campaigns)


def careless_configurations() -> Iterator[Configuration]:
    """The races that a careless limiter loses: sixteen campaigns for one user."""
    for isolation in ISOLATIONS[:2]:
        yield Configuration("count, then reserve", "direct", isolation, 1, CONNECTIONS)


def make_round(number: int, users: int, campaigns: int, chance: random.Random) -> Round:
    """Make up users with a past, and say what the cap allows them."""
    per_day, per_week = chance.randint(1, 4), chance.randint(1, 6)
    rules = (
        CapRule("by_day", per_day, timedelta(days=1)),
        CapRule("by_week", per_week, timedelta(days=7)),
    )
    allowed = {}
    earlier = []
    for user in (f"{number}-{index}" for index in range(users)):
        taken = [0, 0]
        for index in range(chance.randint(0, EARLIER_CAMPAIGNS)):
            age, windows = chance.choice(list(PAST.items()))
            state = chance.choice(("sent", "in_doubt"))
            earlier.append((user, f"earlier_{index}", state, age))
            taken = [count + inside for count, inside in zip(taken, windows, strict=True)]
        allowed[user] = max(0, min(campaigns, per_day - taken[0], per_week - taken[1]))
    return Round(FIRST_DAY + timedelta(days=number), rules, allowed, earlier)


def prepare(ledger: LedgerConnection, race: Round, campaigns: Sequence[Campaign]) -> None:
    """Write the round's cohorts, its users' past, and their planned sends."""
    names = [campaign.id for campaign in campaigns]
    with ledger.transaction():
        ledger.execute(
            "SET LOCAL session_replication_role = replica"
        )  # a past that the rules let nobody write
        ledger.execute(
            "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone,"
            " offset_days, not_after)"
            " SELECT name, %(day)s, %(day)s::date, %(day)s::date + 1, 'UTC', 4, 'infinity'"
            " FROM unnest(%(names)s::text[]) AS name",
            {"day": race.day, "names": [*names, *(f"earlier_{index}" for index in range(EARLIER_CAMPAIGNS))]},
        )
        ledger.execute(
            "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch, state, ready_at, gate_at,"
            " attempt, answer_due, sent_at)"
            " SELECT user_id, campaign, %(day)s, 0, state::lifecycle.send_state, at, at,"
            " gen_random_uuid(), at, CASE state WHEN 'sent' THEN at END"
            " FROM unnest(%(users)s::text[], %(campaigns)s::text[], %(states)s::text[], %(ages)s::interval[])"
            " AS e (user_id, campaign, state, age) CROSS JOIN LATERAL (SELECT now() - age AS at) AS moment",
            {
                "day": race.day,
                **dict(
                    zip(
                        ("users", "campaigns", "states", "ages"),
                        map(list, zip(*race.earlier, strict=True)) if race.earlier else ([], [], [], []),
                        strict=True,
                    )
                ),
            },
        )
        ledger.execute(
            "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch)"
            " SELECT user_id, campaign, %(day)s, 0"
            " FROM unnest(%(users)s::text[]) AS user_id CROSS JOIN unnest(%(names)s::text[]) AS campaign",
            {"day": race.day, "users": list(race.allowed), "names": names},
        )


def judge(ledger: LedgerConnection, race: Round, names: Sequence[str]) -> tuple[int, int]:
    """Count reservations over and under what each user may get."""
    reserved: dict[str, int] = dict.fromkeys(race.allowed, 0)
    rows = ledger.execute(
        "SELECT user_id, count(*) FROM lifecycle.sends"
        " WHERE campaign = ANY (%s) AND cohort_date = %s AND state = 'ready' GROUP BY user_id",
        (list(names), race.day),
    )
    reserved.update(dict(rows.fetchall()))
    differences = [reserved[user] - allowed for user, allowed in race.allowed.items()]
    return sum(d for d in differences if d > 0), -sum(d for d in differences if d < 0)


def run_configuration(
    configuration: Configuration,
    connect: Callable[[], psycopg.Connection[Any]],
    rounds: int,
    *,
    seed: int,
) -> Tally:
    """Race ``rounds`` times; the same ``seed`` makes up the same users with the same past."""
    campaigns = [_campaign(f"campaign_{index:02d}") for index in range(configuration.campaigns)]
    names = [campaign.id for campaign in campaigns]
    chance = random.Random(seed)  # noqa: S311  (made-up users, not secrets)
    limiter = LIMITERS[configuration.limiter]
    tally = Tally()
    started = time.monotonic()
    with ExitStack() as open_connections, ThreadPoolExecutor(CONNECTIONS) as pool:
        connections = [
            open_connections.enter_context(connect_to_ledger(connect)) for _ in range(CONNECTIONS + 1)
        ]
        own = connections.pop()
        _require_isolation(connections, configuration.isolation)
        released = threading.Barrier(CONNECTIONS)

        def race_on(ledger: LedgerConnection, campaign: Campaign, race: Round) -> None:
            released.wait()
            limiter(ledger, campaign, race.rules, race.day)

        for number in range(rounds):
            if _stopping.is_set():
                break
            race = make_round(number, configuration.users, configuration.campaigns, chance)
            prepare(own, race, campaigns)
            lanes = [
                pool.submit(race_on, ledger, campaign, race)
                for ledger, campaign in zip(connections, itertools.cycle(campaigns), strict=False)
            ]
            for lane in lanes:
                lane.result()
            over, under = judge(own, race, names)
            tally.rounds += 1
            tally.over += over
            tally.under += under
    tally.seconds = time.monotonic() - started
    return tally


def run_all(rounds: int, careless_rounds: int, at_once: int) -> list[tuple[Configuration, Tally]]:
    """Race every configuration, ``rounds`` shared out between them, and ``at_once`` of them side by side.

    Each has a database of its own, and advisory locks are a database's: they do not wait for each other.
    """
    pooled = pgbouncer_program() is not None
    plan = list(configurations(pooled=pooled))
    share, rest = divmod(rounds, len(plan))
    shares = [(configuration, share + (index < rest)) for index, configuration in enumerate(plan)]
    shares += [(configuration, careless_rounds) for configuration in careless_configurations()]
    with ExitStack() as running:
        server = running.enter_context(temporary_server({"max_connections": "600"}))
        databases = [
            _database(server, number, configuration) for number, (configuration, _) in enumerate(shares)
        ]
        pooler = None
        if pooled:
            pooler = running.enter_context(running_pgbouncer(server, databases, pool_size=SHARED_CONNECTIONS))

        def run(number: int) -> tuple[Configuration, Tally]:
            configuration, count = shares[number]
            connect = _connector(server, pooler, configuration, databases[number])
            tally = run_configuration(configuration, connect, count, seed=number)
            print(_line(configuration, tally), flush=True)
            return configuration, tally

        with ThreadPoolExecutor(at_once) as pool:
            results = list(pool.map(run, range(len(shares))))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Race, print a row per configuration, and end with one JSON object; 1 when the cap was not exact."""
    parser = argparse.ArgumentParser(prog="cap_rounds", description="Race the frequency cap.")
    parser.add_argument("--rounds", type=int, default=10_000, help="rounds of the package's limiter in all")
    parser.add_argument("--careless-rounds", type=int, default=20, help="rounds of each careless race")
    parser.add_argument("--at-once", type=int, default=4, help="races side by side, each in its own database")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.careless_rounds, options.at_once) < 1:
        parser.error("there must be at least one of each")
    _stopping.clear()
    started = time.monotonic()
    print(_HEADER)
    results = run_all(options.rounds, options.careless_rounds, options.at_once)
    if pgbouncer_program() is None:
        print(f"{'limit_rate':<20} PgBouncer  not installed: {INSTALL}")
    ours = [tally for configuration, tally in results if configuration.limiter == "limit_rate"]
    others = [tally for configuration, tally in results if configuration.limiter != "limit_rate"]
    figures = {
        "rounds": sum(tally.rounds for tally in ours),
        "over": sum(tally.over for tally in ours),
        "under": sum(tally.under for tally in ours),
        "seconds": round(time.monotonic() - started, 1),
        "pgbouncer": pgbouncer_program() is not None,
        "careless_rounds": sum(tally.rounds for tally in others),
        "careless_over": sum(tally.over for tally in others),
    }
    print(json.dumps(figures))
    exact = figures["over"] == figures["under"] == 0
    return 0 if exact and figures["careless_over"] and not _stopping.is_set() else 1


_HEADER = (
    f"{'limiter':<20} {'route':<10} {'default isolation':<17} users campaigns rounds  over under seconds"
)


def _line(configuration: Configuration, tally: Tally) -> str:
    return (
        f"{configuration.limiter:<20} {configuration.route:<10} {configuration.isolation:<17}"
        f" {configuration.users:>5} {configuration.campaigns:>9} {tally.rounds:>6} {tally.over:>5}"
        f" {tally.under:>5} {tally.seconds:>7.1f}"
    )


def _campaign(name: str) -> Campaign:
    return Campaign.model_validate({
        "id": name, "schedule": "0 6 * * *", "timezone": "UTC", "offset_days": 4, "audience": "users.sql",
        "from": "The team <hello@example.com>",
    })  # fmt: skip


def _database(server: PostgresServer, number: int, configuration: Configuration) -> str:
    name = f"cap_{number}"
    server.create_database(name)
    with server.connect(name) as connection:
        migrate(connection)
        isolation = f"ALTER DATABASE {name} SET default_transaction_isolation = '{configuration.isolation}'"
        connection.execute(isolation.encode())
    return name


def _connector(
    server: PostgresServer, pooler: PgBouncer | None, configuration: Configuration, database: str
) -> Callable[[], psycopg.Connection[Any]]:
    through = pooler if configuration.route == "PgBouncer" else server
    if through is None:
        raise ValueError("a race through PgBouncer needs one")
    url = through.url(database)
    return lambda: psycopg.connect(url)


def _require_isolation(connections: Sequence[LedgerConnection], isolation: str) -> None:
    for ledger in connections:
        found = ledger.execute("SHOW default_transaction_isolation").fetchall()
        if found != [(isolation,)]:
            raise RuntimeError(f"the server's default isolation is {found}, not {isolation}")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stopping.set())
    sys.exit(main())
