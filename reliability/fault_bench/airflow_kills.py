"""Rows of the fault bench: what Airflow consists of is killed in mid-send, and comes back."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import get_args

from reliability.fault_bench.airflow_campaign import (
    CONNECTIONS,
    RUN_SECONDS,
    AirflowCampaign,
    airflow_campaign,
    until_noted,
)
from reliability.fault_bench.airflow_probe import Kill, SendingPoint
from reliability.fault_bench.airflow_stack import API_SERVER, SCHEDULER, airflow_stack, until
from reliability.fault_bench.airflow_without import FORGETFUL, NO_FENCE, SENT_AGAIN_WHEN_OVERDUE
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting
from tests.smtp_script import Accept, Queued, Until

SENDING_POINTS: tuple[SendingPoint, ...] = get_args(SendingPoint)
THOROUGH_KILLS = 54


def kill_supervisor(setting: Setting, rng: random.Random) -> Observation:
    """The supervisor dies in mid-send; its orphan goes on while Airflow starts a second try beside it."""
    with airflow_campaign(airflow_stack(setting.postgres), setting) as campaign:
        answering = threading.Event()
        campaign.server.on("dot", Accept(), Queued(), times=6)
        campaign.server.on("dot", Accept(), Until(answering), Queued())
        campaign.add_users(40)
        campaign.plan_kills([Kill("answered", rng.randint(1, 6), "supervisor")])
        campaign.add_dag(retries=30)
        until(lambda: second_try_is_at_it(campaign), RUN_SECONDS, "Airflow has started no second try")
        answering.set()
        return finish(campaign)


def second_try_is_at_it(campaign: AirflowCampaign) -> bool:
    """Whether a second process gates, or one was refused the lease and a third has begun."""
    gating = {note["pid"] for note in campaign.notes("asking")}
    return len(gating) > 1 or len(campaign.notes("began")) > 2


def kill_task(setting: Setting, rng: random.Random) -> Observation:
    """Task processes die at every point of the dialogue; then everything is cleared, as a person would."""
    kills = [Kill(point, rng.randint(1, 3)) for point in SENDING_POINTS]
    if setting.thorough:
        kills += [
            Kill(rng.choice(SENDING_POINTS), rng.randint(1, 4)) for _ in range(THOROUGH_KILLS - len(kills))
        ]
        # a machine that dies, once at each point: Airflow hears of it only by the missing heartbeat
        kills += [Kill(point, 1, "both") for point in SENDING_POINTS]
    rng.shuffle(kills)
    with airflow_campaign(airflow_stack(setting.postgres), setting, batch_size=40) as campaign:
        campaign.add_users(400 if setting.thorough else 60)
        campaign.plan_kills(kills)
        campaign.add_dag(retries=100)
        before = finish(campaign, seconds=3000)
        (run,) = campaign.api.runs(campaign.id)
        campaign.api.clear(run)
        (again,) = campaign.wait(campaign.api.run(run.dag_id, run.run_id))
        wanted = "failed" if campaign.unanswered() else "success"
        problems = [*before.problems]
        if again.state != wanted:
            problems.append(f"the cleared run is a {again.state}, must be a {wanted}")
        problems += too_many_left_open(campaign)
        if len(campaign.notes("killed")) != len(kills):
            problems.append(f"{len(campaign.notes('killed'))} of {len(kills)} kills took place")
        return campaign.observe(before.runs, problems)


def too_many_left_open(campaign: AirflowCampaign) -> list[str]:
    """Say which process, killed or not, left more users in doubt than it had connections."""
    by_process = Counter(campaign.unanswered().values())
    return [
        f"process {pid} left {left} users in doubt with {CONNECTIONS} connections"
        for pid, left in by_process.items()
        if left > CONNECTIONS
    ]


def kill_scheduler(setting: Setting, rng: random.Random) -> Observation:
    """The scheduler dies in mid-send and is started again; what it had started goes on without it."""
    stack = airflow_stack(setting.postgres)
    with airflow_campaign(stack, setting, dot_delay=0.5) as campaign:
        campaign.add_users(100)
        campaign.add_dag(retries=30)
        until_noted(campaign, "recorded", rng.randint(3, 10))
        stack.kill(SCHEDULER)
        stack.start_again(SCHEDULER)
        return finish(campaign, killed=1)


def stop_api_server(setting: Setting, rng: random.Random) -> Observation:
    """The API server dies in mid-send and comes back some seconds later; tasks cannot say how they fare."""
    stack = airflow_stack(setting.postgres)
    with airflow_campaign(stack, setting, dot_delay=0.5) as campaign:
        campaign.add_users(100)
        campaign.add_dag(retries=30)
        until_noted(campaign, "recorded", rng.randint(3, 10))
        stack.kill_api_server()
        # away until the sending process has noticed: it is asked to stop, or has sent everything
        until_noted(campaign, "recorded", 20)
        stack.start_again(API_SERVER)
        return finish(campaign, killed=1)


def finish(campaign: AirflowCampaign, *, killed: int = 0, seconds: float = RUN_SECONDS) -> Observation:
    """Wait for the scheduled run; it must be red exactly when somebody is in doubt.

    :param killed: how many processes beside those of the task the play has killed.
    """
    (run,) = campaign.wait(campaign.scheduled(), seconds=seconds)
    wanted = "failed" if campaign.unanswered() else "success"
    problems = [] if run.state == wanted else [f"the run is a {run.state}, must be a {wanted}"]
    return campaign.observe(campaign.tries(run), problems, killed=killed)


FAULTS: Faults = (
    Fault(
        name="SIGKILL of the Airflow supervisor in mid-send",
        expected="the orphan and the second try send 1 each together",
        protection="the row's state at the gate, behind the batch lease",
        play=kill_supervisor,
        without=(NO_FENCE,),
    ),
    Fault(
        name="SIGKILL of Airflow's task process at every point of the dialogue, then a clear of the run",
        expected="the retry goes on, at most 1 each, in doubt exactly those cut after the gate",
        protection="an overdue answer is a doubt, never sent again",
        play=kill_task,
        without=(SENT_AGAIN_WHEN_OVERDUE,),
        slow=True,
    ),
    Fault(
        name="SIGKILL of the Airflow scheduler in mid-send, restarted",
        expected="run completes after recovery, 1 each",
        protection="the row's state at the gate, behind the batch lease",
        play=kill_scheduler,
        without=(NO_FENCE,),
        slow=True,
    ),
    Fault(
        name="Airflow's API server away in mid-send",
        expected="run completes after its return, 1 each",
        protection="the row's state",
        play=stop_api_server,
        without=(FORGETFUL,),
        slow=True,
    ),
)
