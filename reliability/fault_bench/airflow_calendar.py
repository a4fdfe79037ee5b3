"""Rows of the fault bench about days and cohorts. Airflow adds nothing to them: they are played without it.

What an interval timetable would change (the logical date, by a day) cannot come about: the DAG passes its
timetable as an object, and the row with two Airflows has the setting for the other kind on in one of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import partial

from local_stack.errors import StackError
from local_stack.settings import PROJECT
from reliability.fault_bench.fault import Fault, Faults, Observation, Patch, Setting, Variant


def play_days(name: str, setting: Setting, rng: random.Random) -> Observation:
    """Play one of `airflow_calendar_play`'s plays in a process of its own."""
    seed = str(rng.randrange(2**32))
    databases = [f"days_{name}_{os.getpid()}_{kind}" for kind in ("ledger", "source")]
    paths = os.pathsep.join((str(setting.tree), str(PROJECT)))
    try:
        for database in databases:
            setting.postgres.create_database(database)
        ledger, source = map(setting.postgres.url, databases)
        environment = {**os.environ, "PYTHONPATH": paths, "LIFECYCLE_LEDGER_DSN": ledger}
        _run(["lifecycle_emails", "migrate"], environment)
        module = "reliability.fault_bench.airflow_calendar_play"
        said = _run([module, name, str(setting.folder), ledger, source, seed], environment)
    finally:
        for database in databases:
            setting.postgres.drop_database(database)
    found = json.loads(said.splitlines()[-1])
    return Observation(
        runs=1,
        kills=0,
        max_copies=found["max_copies"],
        lost=found["lost"],
        in_doubt=0,
        in_doubt_expected=0,
        problems=tuple(found["problems"]),
    )


def _run(module: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *module], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StackError(f"{module[0]} has failed: {done.stderr[-2000:]}")
    return done.stdout


_PLANNING = "lifecycle_emails/ledger/planning.py"
_COHORT = "lifecycle_emails/cohort.py"

FAULTS: Faults = (
    Fault(
        name="DST days, skipped and doubled midnights, a skipped day, a leap day",
        expected="every user planned once, in the cohort of the day on the clocks",
        protection="windows from midnight to midnight on the campaign's clocks",
        play=partial(play_days, "calendar"),
        without=(
            Variant(
                "a day is as long as the clocks say",
                (
                    Patch(
                        _COHORT,
                        "window_end=_start_of_day(cohort_date + timedelta(days=1), campaign.timezone),",
                        "window_end=_start_of_day(cohort_date, campaign.timezone) + timedelta(days=1),",
                    ),
                ),
            ),
        ),
        slow=True,
    ),
    Fault(
        name="hour, zone and offset changed, created_at corrected before and after the mail, latecomers",
        expected="every user planned once, nobody mailed twice",
        protection="a cohort is frozen between its neighbours; one row per user and campaign",
        play=partial(play_days, "changes"),
        without=(
            Variant(
                "a cohort begins where the one before ends",
                (
                    Patch(
                        _PLANNING,
                        "    start = previous_end or natural.window_start\n",
                        "    start = natural.window_start\n",
                    ),
                ),
            ),
        ),
        slow=True,
    ),
    Fault(
        name="two extracts of the same cohorts at once, in opposite order",
        expected="every user planned once, no deadlock",
        protection="set steps of a campaign take turns; behind that, keys are inserted in order",
        play=partial(play_days, "two_extracts"),
        without=(
            Variant(
                "the campaign's lock, and keys in order",
                (
                    Patch(
                        "lifecycle_emails/sql/queries/lock_campaign.sql",
                        "SELECT pg_advisory_xact_lock(hashtextextended("
                        "'lifecycle campaign ' || %(campaign)s, 0))",
                        "SELECT %(campaign)s::text",
                    ),
                    Patch("lifecycle_emails/ledger/arriving.py", 'if arguments["first_time"]:', "if False:"),
                    Patch(
                        "lifecycle_emails/sql/queries/plan_arrivals.sql",
                        "\nORDER BY a.user_id",
                        "\nORDER BY random()",
                    ),
                ),
            ),
        ),
        slow=True,
    ),
)
