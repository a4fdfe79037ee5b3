"""Rows: many at once, many users, hostile data, the team's callbacks, and people who change their mind."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from reliability.fault_bench import variants
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from reliability.fault_bench.schedules import observe
from reliability.fault_bench.sink import SinkPlan
from reliability.fault_bench.stage import AUDIENCE, BODY, CAMPAIGN, DAILY, Stage, cohort_date
from reliability.fault_bench.staging import staged

WEEK = 7 * 86400


def _workers_at_once(setting: Setting, _: random.Random) -> Observation:
    """Two, then sixteen, processes send the same batches."""
    with staged(setting) as stage:
        stage.write_campaign(CAMPAIGN, connections=2, batch_size=10)
        users = stage.add_users(40)
        stage.open_sink()
        stage.run("extract", "filter", "limit")
        stage.run_all(2, "send")
        users += stage.add_users(40, first=101)
        stage.run("extract", "filter", "limit")
        stage.run_all(16, "send")
        stage.run_until_done()
        return observe(stage, users)


def _two_extracts(setting: Setting, _: random.Random) -> Observation:
    """Two extracts of the same two cohorts begin at once, in opposite order."""
    days = [cohort_date(), cohort_date() - timedelta(days=1)]
    with staged(setting) as stage:
        users = stage.add_users(50) + stage.add_users(50, first=101, day=days[1])
        stage.open_sink()
        start_at = time.monotonic() + 0.3
        named = [day.isoformat() for day in days]
        # the second is slow: it is in the midst of its first cohort when the other one comes to it
        slowly = {"extract: before plan_arrivals": 2.0}
        extracts = [
            stage.start("extract", start_at=start_at, dates=named),
            stage.start("extract", start_at=start_at, dates=named[::-1], delays=slowly),
        ]
        problems = [
            f"an extract failed: {process.outcome['error']}"
            for process in map(stage.finish, extracts)
            if process.outcome["error"]
        ]
        stage.run_until_done(dates=named)
        return observe(stage, users, problems=tuple(problems))


def _cap(setting: Setting, _: random.Random) -> Observation:
    """Sixteen campaigns plan the same user; all reach the limit of three at once."""
    campaigns = [f"campaign_{number}" for number in range(1, 17)]
    options: dict[str, Any] = {"rules": [("three_per_week", 3, WEEK)], "callbacks": ["1 tell"]}
    with staged(setting) as stage:
        (user,) = stage.add_users(1)
        stage.open_sink()
        for campaign in campaigns:
            stage.write_campaign(campaign)
            stage.run("extract", "filter", campaign=campaign)
        start_at = time.monotonic() + 0.5
        # between counting and reserving: a race would have time to happen
        options["delays"] = {"limit: before hold_capped": 0.1}
        for process in [
            stage.start("limit", "send", campaign=campaign, start_at=start_at, **options)
            for campaign in campaigns
        ]:
            stage.finish(process)
        mails = stage.mails()
        states = Counter(mails.states.values())
        accepted = sum(mails.copies.values())
        alerts = stage.ledger.execute("SELECT count(*) FROM lifecycle.alerts").fetchone()
        problems = []
        if accepted != 3 or states != {"sent": 3, "held/capped": 13}:
            problems.append(f"{accepted} were accepted under a cap of 3; states {dict(states)}")
        if alerts != (1,):
            problems.append(f"{alerts and alerts[0]} alerts, not 1")
        lost = mails.lost((campaign, user) for campaign in campaigns)
        return Observation(
            stage.runs, 0, mails.max_copies, len(lost), len(mails.in_state("in_doubt")), 0, (*problems, *lost)
        )


def _callbacks(setting: Setting, _: random.Random) -> Observation:
    """A callback fails; is killed between its return and its mark; then works."""
    problems = []
    with staged(setting) as stage:
        users = stage.add_users(3)
        stage.open_sink()
        stage.write_campaign("second")
        told = stage.folder / "told"
        options: dict[str, Any] = {
            "told": str(told),
            "environment": {"AIRFLOW_HOME": str(stage.folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        }
        cap = {"rules": [("one_per_week", 1, WEEK)], "callbacks": ["1 _tell"]}
        stage.run(*DAILY, **cap)
        stage.run(*DAILY, campaign="second", **cap)
        failed = stage.run("deliver", campaign="second", callback_fails=True, **options)
        if failed.outcome["error"] is None:
            problems.append("a callback failed, and the delivery did not say so")
        users_sent = stage.add_users(2, first=11)
        stage.run(*DAILY, **cap)  # the mail goes on meanwhile
        killed = stage.run("deliver", campaign="second", kill=("callback: returned", 1), **options)
        if not killed.was_killed:
            problems.append(f"the callback was not called again: {killed.outcome['error']}")
        for _again in range(2):
            stage.run("deliver", campaign="second", **options)
        ids = told.read_text().split() if told.exists() else []
        if len(ids) != 2 or len(set(ids)) != 1:
            problems.append(
                f"the callback was told {len(ids)} times of {len(set(ids))} alerts, not twice of one"
            )
        return observe(stage, users + users_sent, problems=tuple(problems))


def _unsubscribed(setting: Setting, chance: random.Random) -> Observation:
    """A user unsubscribes when everything is planned and ready."""
    with staged(setting) as stage:
        users = stage.add_users(5)
        gone = chance.choice(users)
        stage.open_sink()
        stage.run("extract", "filter", "limit")
        stage.run("suppress", suppressed=gone)
        stage.run("send")
        mails = stage.mails()
        problems = []
        if mails.copies[CAMPAIGN, gone]:
            problems.append("somebody who had unsubscribed got a mail")
        stage.run_until_done()
        if stage.mails().states[CAMPAIGN, gone] != "held/suppressed":
            problems.append(f"who unsubscribed is {stage.mails().states[CAMPAIGN, gone]}")
        return observe(stage, users, problems=tuple(problems))


def _sizes(setting: Setting, _: random.Random) -> Observation:
    """Nobody, one user, and a little more than a batch."""
    return _all_sent(setting, (0, 1, 1025), batch_size=500)


def _large(setting: Setting, _: random.Random) -> Observation:
    """A hundred thousand users, without any fault: nobody in doubt."""
    return _all_sent(setting, (100_000,), batch_size=1000, connections=32)


def _all_sent(
    setting: Setting, sizes: tuple[int, ...], *, batch_size: int, connections: int = 4
) -> Observation:
    seen: list[Observation] = []
    with staged(setting) as stage:
        for size in sizes:
            stage.clear()
            stage.write_campaign(CAMPAIGN, connections=connections, batch_size=batch_size)
            users = stage.add_users(size)
            stage.open_sink()
            process = stage.finish_slowly(stage.start(*DAILY))
            error = process.outcome["error"]
            problems = () if error is None else (f"{size} users: {error}",)
            seen.append(observe(stage, users, problems=problems))
    return Observation(
        runs=sum(one.runs for one in seen),
        kills=0,
        max_copies=max(one.max_copies for one in seen),
        lost=sum(one.lost for one in seen),
        in_doubt=sum(one.in_doubt for one in seen),
        in_doubt_expected=0,
        problems=tuple(problem for one in seen for problem in one.problems)[:20],
    )


HOSTILE_NAMES = (
    "Robert'); DROP TABLE users; --",
    "Ada\r\nBcc: everybody@example.com",
    "{{ 7 * 7 }}{% raw %}",
    "\r\n.\r\nMAIL FROM:<x@example.com>",
    "<script>alert(1)</script>",
    "Ada \u202e\u0000x".replace("\u0000", ""),
    "é" * 400,
    ".",
    "",
)
HOSTILE_ADDRESSES = (
    "a@b@example.com", "ada@example.com,bob@example.com", "Ada <ada@example.com>", "", "no address",
    "ada@example.com\r\nRCPT TO:<bob@example.com>", "ada@example.com;bob@example.com",
)  # fmt: skip
WITH_LOCALE = AUDIENCE.replace("full_name FROM", "full_name, nullif(locale, 'none') AS locale FROM")


def _hostile(setting: Setting, _: random.Random) -> Observation:
    """Hostile names and addresses; a NULL in one user's variables; a broken template, mended."""
    problems = []
    with staged(setting) as stage:
        names = stage.add_users(len(HOSTILE_NAMES))
        addresses = stage.add_users(len(HOSTILE_ADDRESSES), first=101)
        missing = stage.add_users(3, first=201)
        _set(stage, "full_name", names, HOSTILE_NAMES)
        _set(stage, "email", addresses, HOSTILE_ADDRESSES)
        _set(stage, "locale", missing, ("none",) * len(missing))
        stage.write("audiences/users.sql", WITH_LOCALE)
        stage.open_sink(SinkPlan.usual())
        stage.write(f"templates/{CAMPAIGN}/body.txt.j2", "{% if %}" + BODY)
        if stage.run(*DAILY).outcome["error"] is None or stage.mails().copies:
            problems.append("a template that does not compile was sent, or nobody heard of it")
        stage.write(f"templates/{CAMPAIGN}/body.txt.j2", BODY + "{{ locale }}\n")
        stage.run(*DAILY)
        states = stage.mails().states
        held = {user for (_, user), state in states.items() if state == "held/render_failed"}
        broken = {user for user, name in zip(names, HOSTILE_NAMES, strict=True) if "\n" in name}
        if held != broken | set(missing):
            problems.append(f"held because they cannot be rendered: {sorted(held)}")
        refused = {user for (_, user), state in states.items() if state == "held/invalid_address"}
        if refused != set(addresses):
            problems.append(f"held for their address: {sorted(refused)}, not {addresses}")
        stage.write(f"templates/{CAMPAIGN}/body.txt.j2", BODY + "{{ locale or 'en' }}\n")
        stage.run_until_done()
        mails = stage.mails()
        due = {*names, *missing} - broken
        unsent = [user for user in due if mails.copies[CAMPAIGN, user] != 1]
        if unsent or sum(mails.copies.values()) != len(due):
            problems.append(f"not sent once after the mend: {unsent}; accepted {sum(mails.copies.values())}")
        return observe(stage, names + addresses + missing, problems=tuple(problems))


def _set(stage: Stage, column: str, users: list[str], values: tuple[str, ...]) -> None:
    for user, value in zip(users, values, strict=True):
        stage.ledger.execute(
            f"UPDATE users SET {column} = %s WHERE user_id = %s".encode(),  # noqa: S608  (a name of our own)
            (value, int(user)),
        )


def _run_is_red(setting: Setting, _: random.Random) -> Observation:
    """A row in doubt, then a run killed with users left ready: the reconciliation has a problem to tell."""
    problems = []
    with staged(setting) as stage:
        users = stage.add_users(3)
        stage.open_sink(SinkPlan.of_users({"2": ({"dot": "EOF"},)}))
        stage.run(*DAILY)
        stage.let_time_pass()
        if not stage.run("reconcile").outcome["done"]["reconcile"]["problems"]:
            problems.append("a run with a row in doubt counts as done")
        users += stage.add_users(3, first=11)
        stage.run(*DAILY, kill=("ask: before", 1))
        told = stage.run("reconcile").outcome["done"]["reconcile"]["problems"]
        if not any("ready" in problem for problem in told):
            problems.append("a run that left users ready counts as done")
        stage.run_until_done()
        return observe(stage, users, problems=tuple(problems))


FAULTS: Faults = (
    Fault(
        "two, then sixteen workers on the same batches",
        "1 each",
        "the row's state at the gate; lease, triggers and a check behind it",
        _workers_at_once,
        (variants.NO_GUARD_AND_NO_LEASE,),
    ),
    Fault(
        "two extracts of one cohort at once, in opposite order",
        "1 each, no deadlock",
        "set steps of a campaign take turns",
        _two_extracts,
        (variants.NO_CAMPAIGN_LOCK,),
    ),
    Fault(
        "sixteen campaigns for one user at once under a cap of three",
        "3 accepted, 13 held, 1 alert",
        "the cap lock, taken before the count",
        _cap,
        (variants.NO_CAP_LOCK,),
    ),
    Fault(
        "a callback fails, is killed before its mark, then works",
        "mail goes on, a repeat has the same id",
        "an alert is marked after its callback returned",
        _callbacks,
        (variants.MARKED_BEFORE_CALL,),
    ),
    Fault(
        "an unsubscribe between planning and gate",
        "held, 0 accepted",
        "the gate looks at suppressions again",
        _unsubscribed,
        (variants.NO_SUPPRESSION_AT_GATE,),
    ),
    Fault(
        "0, 1 and 1,025 users",
        "no failure, the sums close",
        "the groups hold every ready row",
        _sizes,
        (variants.LAST_GROUP_FORGOTTEN,),
    ),
    Fault(
        "100,000 users without a fault",
        "0 in doubt, 1 each",
        "the groups hold every ready row",
        _large,
        (),
        slow=True,
    ),
    Fault(
        "hostile names and addresses, a missing variable, a broken template",
        "held with a reason, the rest go on, sent after the mend",
        "dot-stuffing; failures held user by user",
        _hostile,
        (variants.NO_DOT_STUFFING, variants.ONE_STOPS_ALL),
    ),
    Fault(
        "a row in doubt; users left ready",
        "the run is red, not green",
        "the reconciliation tells of both",
        _run_is_red,
        (variants.DOUBT_IS_GREEN,),
    ),
)
