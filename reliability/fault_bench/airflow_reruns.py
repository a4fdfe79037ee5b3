"""Rows of the fault bench: the same work asked for again, twice at once, from two sides, or days late."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from local_stack.airflow_api import Run
from reliability.fault_bench.airflow_campaign import (
    RUN_SECONDS,
    AirflowCampaign,
    airflow_campaign,
    until_noted,
)
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.airflow_without import (
    DEAF,
    DEAF_WITHOUT_FENCE,
    FORGETFUL,
    NO_FENCE,
    ONLY_ITS_OWN_DAY,
)
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting

TEN_TIMES = 10


def clear_running_task(setting: Setting, rng: random.Random) -> Observation:
    """A sending task is cleared in mid-send, again and again: two tries overlap each time."""
    times = TEN_TIMES if setting.thorough else 2
    with airflow_campaign(airflow_stack(setting.postgres), setting, dot_delay=0.4) as campaign:
        campaign.add_users(40 * times)
        campaign.add_dag(retries=30)
        run = campaign.scheduled()
        for _ in range(times):
            until_noted(campaign, "recorded", len(campaign.notes("recorded")) + rng.randint(2, 6))
            campaign.api.clear(run, ["send_batch"])
        campaign.wait(run)
        return campaign.observe(campaign.tries(run), all_green(campaign, run) + nobody_in_doubt(campaign))


def clear_finished_run(setting: Setting, _rng: random.Random) -> Observation:
    """A task, then a whole run, is cleared when all is done, ten times."""
    times = TEN_TIMES if setting.thorough else 2
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        campaign.add_users(30)
        campaign.add_dag()
        run = campaign.scheduled()
        campaign.wait(run)
        for turn in range(times):
            tasks = ["limit_rate"] if turn % 2 == 0 else []
            campaign.api.clear(run, tasks)
            campaign.wait(campaign.api.run(run.dag_id, run.run_id))
        return campaign.observe(1 + times, all_green(campaign, run))


def backfill_again(setting: Setting, _rng: random.Random) -> Observation:
    """Backfill days that ran as scheduled or backfilled already, with each reprocess behaviour."""
    behaviours = ("none", "failed", "completed") if setting.thorough else ("completed",)
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        for days_ago in range(3):
            campaign.add_users(10, days_ago)
        campaign.add_dag(days_back=5)
        run = campaign.scheduled()
        campaign.wait(run)
        tick = logical_date(run)
        runs = campaign.backfill(campaign.id, tick - timedelta(days=2), tick - timedelta(days=1))
        campaign.wait(*runs)
        for behaviour in behaviours:
            if behaviour == "failed":
                campaign.api.mark_run(runs[0], "failed")
            campaign.wait(*campaign.backfill(campaign.id, tick - timedelta(days=2), tick, behaviour))
        every = campaign.api.runs(campaign.id)
        return campaign.observe(campaign.tries(*every), all_green(campaign, *every))


def two_dag_ids(setting: Setting, _rng: random.Random) -> Observation:
    """One campaign is built as two DAGs, which run the same day at the same time."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, dot_delay=0.3) as campaign:
        campaign.add_users(40)
        dags = [campaign.add_dag(f"{campaign.id}_{name}", retries=30) for name in ("one", "two")]
        runs = [campaign.scheduled(dag) for dag in dags]
        campaign.wait(*runs)
        return campaign.observe(campaign.tries(*runs), all_green(campaign, *runs))


def overlapping_backfills(setting: Setting, _rng: random.Random) -> Observation:
    """Two DAGs of one campaign backfill overlapping days at the same time."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        for days_ago in range(3):
            campaign.add_users(15, days_ago)
        dags = [campaign.add_dag(f"{campaign.id}_{name}", retries=30, days_back=5) for name in ("one", "two")]
        runs = [campaign.scheduled(dag) for dag in dags]
        campaign.wait(*runs)
        tick = logical_date(runs[0])
        for dag in dags:
            runs += campaign.backfill(dag, tick - timedelta(days=2), tick, "completed")
        campaign.wait(*runs)
        return campaign.observe(campaign.tries(*runs), all_green(campaign, *runs))


def two_airflows(setting: Setting, _rng: random.Random) -> Observation:
    """Two Airflows, each with its own metadata, run the same campaign on one ledger at the same time."""
    first = airflow_stack(setting.postgres)
    # with the setting that makes an interval of a plain cron string, and another day of its logical date
    interval = {"AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS": "True"}
    second = airflow_stack(setting.postgres, "airflow_too", interval)
    with airflow_campaign(first, setting, dot_delay=0.3) as campaign:
        campaign.connect(second)
        campaign.add_users(40)
        campaign.add_dag(retries=30)
        campaign.add_dag(retries=30, stack=second)
        runs = [campaign.scheduled(stack=stack) for stack in (first, second)]
        campaign.wait(runs[0])
        other = second.api.wait_for_run(runs[1], RUN_SECONDS)
        problems = all_green(campaign, runs[0])
        if other.state != "success":
            problems.append(f"the run of the second Airflow is a {other.state}")
        return campaign.observe(2, problems)


def paused_for_days(setting: Setting, _rng: random.Random) -> Observation:
    """The DAG misses three ticks; unpaused, the newest runs at once and finds the cohorts of the others."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, max_lateness_days=2) as campaign:
        ids = {days_ago: campaign.add_users(10, days_ago) for days_ago in range(4)}
        # its last run before the pause: by hand, for the cohort of three days before today's
        campaign.add_dag(days_back=-1)
        campaign.api.wait_for_dags([campaign.id], RUN_SECONDS)
        by_hand = campaign.api.trigger(campaign.id, conf={"cohort_date": campaign.cohort(3).isoformat()})
        campaign.wait(by_hand)
        maintenance = campaign.add_maintenance()
        campaign.wait(campaign.api.trigger(maintenance))
        reported = campaign.missing_cohorts()
        campaign.add_dag(days_back=5)
        run = campaign.scheduled()
        campaign.wait(run)
        problems = all_green(campaign, run)
        missed = sorted(campaign.cohort(days_ago).isoformat() for days_ago in (1, 2))
        if not set(missed) <= reported:
            problems.append(f"reported as missing: {sorted(reported)}, must be {missed}")
        states, copies = campaign.states(), campaign.copies()
        # past its deadline: the cohort of three days ago, already when it was run by hand, and that of two
        for days_ago, wanted in {0: "sent", 1: "sent", 2: "held/stale", 3: "held/stale"}.items():
            found = Counter(states.get(user, "no row") for user in ids[days_ago])
            if found != {wanted: 10}:
                problems.append(f"cohort of {days_ago} days ago: {dict(found)}, must be {wanted}")
        if set(copies) != {*ids[0], *ids[1]}:
            problems.append(f"accepted for {len(copies)} users, must be 20")
        return campaign.observe(3, problems)


def logical_date(run: Run) -> datetime:
    """The logical date of a scheduled run."""
    assert run.logical_date is not None  # noqa: S101  (it has one)
    return run.logical_date


def all_green(campaign: AirflowCampaign, *runs: Run) -> list[str]:
    """Say which of these runs is not a success."""
    now = [campaign.api.run(run.dag_id, run.run_id) for run in runs]
    return [f"{run.run_id} is a {run.state}" for run in now if run.state != "success"]


def nobody_in_doubt(campaign: AirflowCampaign) -> list[str]:
    """Say who was cut between gate and recorded answer, where nobody may be."""
    cut: Sequence[str] = sorted(campaign.unanswered())
    return [f"cut between gate and recorded answer: {cut[:5]}"] if cut else []


FAULTS: Faults = (
    Fault(
        name="a running sending task is cleared, ten times",
        expected="1 each, nothing in doubt",
        protection="on_kill, and the row's state at the gate behind the batch lease",
        play=clear_running_task,
        without=(DEAF, DEAF_WITHOUT_FENCE),
    ),
    Fault(
        name="a task and a whole finished run are cleared, ten times",
        expected="1 each",
        protection="the row's state",
        play=clear_finished_run,
        without=(FORGETFUL,),
        slow=True,
    ),
    Fault(
        name="backfill over days that are scheduled, with each reprocess behaviour",
        expected="1 each",
        protection="the row's state",
        play=backfill_again,
        without=(FORGETFUL,),
    ),
    Fault(
        name="one campaign under two DAG ids at once",
        expected="1 each",
        protection="the row's state at the gate, behind the batch lease",
        play=two_dag_ids,
        without=(NO_FENCE,),
        slow=True,
    ),
    Fault(
        name="two overlapping backfills under two DAG ids",
        expected="1 each",
        protection="the row's state",
        play=overlapping_backfills,
        without=(FORGETFUL,),
        slow=True,
    ),
    Fault(
        name="two Airflows on one ledger",
        expected="1 each",
        protection="the row's state at the gate, behind the batch lease",
        play=two_airflows,
        without=(NO_FENCE,),
        slow=True,
    ),
    Fault(
        name="DAG paused for three days, then unpaused",
        expected="the newest at once; the cohorts between are reported, planned by that run, or stale",
        protection="a scheduled run takes the gaps before it",
        play=paused_for_days,
        without=(ONLY_ITS_OWN_DAY,),
        slow=True,
    ),
)
