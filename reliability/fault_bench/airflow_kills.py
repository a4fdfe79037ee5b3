"""Rows of the fault bench: what Airflow consists of is killed in mid-send, and comes back."""

from __future__ import annotations

import random

from reliability.fault_bench.airflow_campaign import AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_probe import Kill
from reliability.fault_bench.airflow_stack import airflow_stack
from reliability.fault_bench.fault import Fault, Faults, Observation, Setting


def kill_supervisor(setting: Setting, rng: random.Random) -> Observation:
    """The supervisor dies in mid-send; its orphan goes on while Airflow starts a second try beside it."""
    with airflow_campaign(airflow_stack(setting.postgres), setting, dot_delay=0.5) as campaign:
        campaign.add_users(60)
        campaign.plan_kills([Kill("answered", rng.randint(1, 6), "supervisor")])
        campaign.add_dag(retries=30)
        return finish(campaign)


def finish(campaign: AirflowCampaign) -> Observation:
    """Wait for the scheduled run; it must be red exactly when somebody is in doubt."""
    (run,) = campaign.wait(campaign.scheduled())
    doubts = campaign.unanswered()
    wanted = "failed" if doubts else "success"
    problems = [] if run.state == wanted else [f"the run is a {run.state}, must be a {wanted}"]
    tries = sum(task.try_number for task in campaign.api.tasks(run.dag_id, run.run_id) if task.task_id == "send_batch")
    return campaign.observe(tries, problems)


FAULTS: Faults = (
    Fault(
        name="SIGKILL of the Airflow supervisor in mid-send",
        expected="run completes after recovery, 1 each",
        protection="the row's state at the gate",
        play=kill_supervisor,
    ),
)
