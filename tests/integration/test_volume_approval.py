"""The volume breaker on a real Airflow: the scheduler parks the question, its REST API takes the answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local_stack.airflow_api import Run
from local_stack.errors import StackError
from local_stack.postgres import PostgresServer
from local_stack.settings import PROJECT
from reliability.fault_bench.airflow_campaign import AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_stack import AirflowStack, until
from reliability.fault_bench.fault import Setting

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]

SECONDS = 300
VIEWER, USER, APPROVER = "vera", "uma", "olaf"
LOGINS = f"admin:admin,{VIEWER}:viewer,{USER}:user,{APPROVER}:user"
USUAL, UNUSUAL = 4, 200


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresServer) -> Iterator[AirflowStack]:
    running = AirflowStack(postgres_server, "volume", {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": LOGINS})
    yield running
    running.stop()


@pytest.fixture
def campaign(
    stack: AirflowStack, postgres_server: PostgresServer, tmp_path: Path
) -> Iterator[AirflowCampaign]:
    setting = Setting(tmp_path, range(0), postgres_server, PROJECT / "plugins")
    volume = {"factor": 3, "floor": 10, "approvers": [APPROVER]}
    with airflow_campaign(stack, setting, volume=volume) as campaign:
        yield campaign


def add_history(campaign: AirflowCampaign) -> None:
    """Five days of the usual size, the last of them still before its deadline."""
    with campaign.ledger() as ledger:
        for days_ago in range(1, 6):
            day = campaign.cohort(days_ago)
            ledger.execute(
                "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone,"
                " offset_days, not_after, audience_read_at, audience_size)"
                " VALUES (%(campaign)s, %(day)s, %(day)s::timestamp AT TIME ZONE %(zone)s,"
                " %(next)s::timestamp AT TIME ZONE %(zone)s, %(zone)s, 4,"
                " CASE WHEN %(days_ago)s = 1 THEN now() + interval '1 day' ELSE now() END, now(), %(size)s)",
                {
                    "campaign": campaign.id,
                    "day": day,
                    "next": day + timedelta(days=1),
                    "zone": campaign.zone,
                    "days_ago": days_ago,
                    "size": USUAL,
                },
            )


def answer(campaign: AirflowCampaign, run: Run, who: str) -> None:
    passwords = json.loads((campaign.stack.folder / "airflow" / "passwords.json").read_text())
    with campaign.api.logged_in_as(who, passwords[who]) as api:
        api.answer(run, "approve_volume", "Send")


def task_states(campaign: AirflowCampaign, run: Run) -> dict[str, str | None]:
    return {task.task_id: task.state for task in campaign.api.tasks(run.dag_id, run.run_id)}


def verdict(campaign: AirflowCampaign) -> tuple[Any, ...] | None:
    with campaign.ledger() as ledger:
        return ledger.execute(
            "SELECT volume_verdict::text, volume_size, volume_decided_by FROM lifecycle.cohorts"
            " WHERE cohort_date = %s",
            (campaign.cohort(),),
        ).fetchone()


def test_cohort_fifty_times_the_usual_size_waits_for_its_approver_while_the_other_goes_out(
    campaign: AirflowCampaign,
) -> None:
    add_history(campaign)
    earlier = campaign.add_users(USUAL, days_ago=1)
    flood = campaign.add_users(UNUSUAL)
    campaign.add_dag()
    run = campaign.scheduled()

    def waits_alone() -> bool:
        states = task_states(campaign, run)
        return states["approve_volume"] == "awaiting_input" and states["send_batch"] == "success"

    until(waits_alone, SECONDS, "the run does not wait for approval with the other cohort sent")
    assert campaign.copies() == Counter(earlier)
    assert verdict(campaign) == ("awaiting_approval", UNUSUAL, None)

    for who in (VIEWER, USER):
        with pytest.raises(StackError, match=": 403 "):
            answer(campaign, run, who)
    assert verdict(campaign) == ("awaiting_approval", UNUSUAL, None)

    answer(campaign, run, APPROVER)
    ended = campaign.api.wait_for_run(run, SECONDS)

    assert ended.state == "success", task_states(campaign, run)
    assert campaign.copies() == Counter([*earlier, *flood])
    assert verdict(campaign) == ("approved", UNUSUAL, APPROVER)

    campaign.api.clear(run, ["check_volume", "approve_volume", "record_approval", "reconcile"])
    again = campaign.api.wait_for_run(run, SECONDS)

    assert again.state == "success", task_states(campaign, run)
    assert task_states(campaign, run)["approve_volume"] == "skipped"
    assert campaign.copies() == Counter([*earlier, *flood])
