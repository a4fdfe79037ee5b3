"""Operators on a real Airflow: who may act and who may not, a halt in the middle of a send, the ledger out of reach."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle_emails.ledger.actions import list_actions
from local_stack.airflow_api import AirflowApi, Run
from local_stack.errors import StackError
from local_stack.postgres import PostgresServer
from local_stack.settings import PROJECT
from reliability.fault_bench.airflow_campaign import AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_dag_files import DAG_FILE
from reliability.fault_bench.airflow_stack import AirflowStack, until
from reliability.fault_bench.fault import Setting
from tests.address_search import addresses_in_files, addresses_in_postgres

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]

SECONDS = 900
VIEWER, USER, OPERATOR = "vera", "uma", "olaf"
LOGINS = f"admin:admin,{VIEWER}:viewer,{USER}:user,{OPERATOR}:op"
OPERATIONS = """\
from lifecycle_emails import lifecycle_operations_dag

dag = lifecycle_operations_dag(dag_id={dag_id!r}, include_dir={include!r}, ledger_conn_id={ledger!r})
"""


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresServer) -> Iterator[AirflowStack]:
    running = AirflowStack(postgres_server, "operating", {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": LOGINS})
    yield running
    metadata = postgres_server.url("fault_bench_operating")
    with psycopg.connect(metadata, autocommit=True) as database:
        found = list(addresses_in_postgres(database, "public"))
    # Airflow's own audit of requests keeps the body of a refused one too; no DAG can keep it from that
    in_metadata = [place for place in found if not place.startswith("log.extra: ")]
    in_logs = list(addresses_in_files(running.folder / "airflow" / "logs"))
    in_output = list(addresses_in_files(running.folder / "logs"))
    running.stop()
    assert (in_metadata, in_logs, in_output) == ([], [], [])


@dataclass(frozen=True)
class Stage:
    """A campaign with the operators' DAG beside it, and people who log in."""

    campaign: AirflowCampaign
    dag_id: str

    def login(self, name: str) -> AirflowApi:
        """Airflow's API as this person has it."""
        folder = self.campaign.stack.folder / "airflow"
        password = json.loads((folder / "passwords.json").read_text())[name]
        return self.campaign.api.logged_in_as(name, password)

    def order(self, who: str, action: str, **conf: Any) -> Run:
        """Trigger the operators' DAG; StackError: refused."""
        with self.login(who) as api:
            return api.trigger(self.dag_id, conf={"action": action, "reason": "wrong template", **conf})

    def done(self, run: Run, state: str = "success") -> dict[str, Any]:
        """Wait for an order and return what its task gives."""
        ended = self.campaign.api.wait_for_run(run, SECONDS)
        assert ended.state == state, self.log(run)
        return self.campaign.api.result(run, "operate") if state == "success" else {}

    def log(self, run: Run) -> str:
        """The log of an order's task."""
        [task] = self.campaign.api.tasks(run.dag_id, run.run_id)
        return self.campaign.api.log(run.dag_id, run.run_id, task)

    def audit(self) -> list[tuple[str, str, str | None]]:
        """Who did what with which result, the newest first."""
        with self.campaign.ledger() as ledger:
            return [(each.actor, each.action, each.result) for each in list_actions(ledger)]


@pytest.fixture
def stage(stack: AirflowStack, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Stage]:
    setting = Setting(tmp_path, range(0), postgres_server, PROJECT / "plugins")
    with airflow_campaign(stack, setting, dot_delay=0.04, connections=4, batch_size=5000) as campaign:
        dag_id = f"{campaign.id}_operations"
        body = OPERATIONS.format(dag_id=dag_id, include=str(campaign.include), ledger=f"{campaign.id}_ledger")
        text = DAG_FILE.format(tree=str(setting.tree), project=str(PROJECT), folder=str(tmp_path), body=body)
        (stack.dags / f"{dag_id}.py").write_text(text)
        campaign.dags.append((stack, dag_id))
        stack.api.wait_for_dags([dag_id], SECONDS)
        yield Stage(campaign, dag_id)


def refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(StackError) as refusal:
        attempt()
    return str(refusal.value)


def test_viewer_is_refused_and_everybody_else_is_named(stage: Stage) -> None:
    assert ": 403 " in refused(lambda: stage.order(VIEWER, "halt"))
    first = stage.order(USER, "halt")
    assert stage.done(first) == {
        "action": "halt", "actor": USER, "result": "sending is halted", "done_before": False,
    }  # fmt: skip
    with stage.login(VIEWER) as api:
        assert ": 403 " in refused(lambda: api.clear(first))
    second = stage.done(stage.order(OPERATOR, "halt"))["result"]
    assert second.startswith(f"was halted before, by {USER} since ")
    stage.done(stage.order(OPERATOR, "resume"))
    stage.campaign.api.clear(first)
    assert stage.done(first)["done_before"] is True
    assert stage.audit() == [
        (OPERATOR, "resume", "sending goes on"),
        (OPERATOR, "halt", second),
        (USER, "halt", "sending is halted"),
    ]
    with stage.campaign.ledger() as ledger:
        halts = ledger.execute("SELECT halted_by, lifted_by FROM lifecycle.halts").fetchall()
    assert halts == [(USER, OPERATOR)]


def test_two_operators_at_once_change_nothing_twice(stage: Stage) -> None:
    with ThreadPoolExecutor(2) as pool:
        orders = [pool.submit(stage.order, who, "suppress", user_ids=["42"]) for who in (USER, OPERATOR)]
        runs = [order.result() for order in orders]
    results = sorted(stage.done(run)["result"] for run in runs)
    assert results == ["suppressed. No run has seen user 42", "was suppressed before; nothing changed"]
    with stage.campaign.ledger() as ledger:
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (1,)


def test_form_with_an_address_or_without_sense_is_refused_before_it_is_kept(stage: Stage) -> None:
    for conf in (
        {"user_ids": ["ann@example.com"]},
        {"reason": "asked by ann@example.com", "user_ids": ["1"]},
        {"campaign": "ann@example.com", "user_ids": ["1"]},
    ):
        said = refused(lambda conf=conf: stage.order(OPERATOR, "suppress", **conf))
        assert ": 400 " in said
    assert ": 400 " in refused(lambda: stage.order(OPERATOR, "explode"))
    run = stage.order(OPERATOR, "release", user_ids=["1"])
    stage.done(run, "failed")
    assert "release: name the campaign" in stage.log(run)
    assert stage.audit() == []


def test_halt_from_the_ui_stops_a_running_send_and_resuming_sends_the_rest_once(stage: Stage) -> None:
    campaign, accepted = stage.campaign, stage.campaign.server.accepted
    users = campaign.add_users(1500)
    campaign.add_dag()
    run = campaign.scheduled()
    until(lambda: len(accepted) >= 200, SECONDS, "200 mails are not out")
    triggered_at = time.time()
    stage.done(stage.order(OPERATOR, "halt", campaign=campaign.id))
    ended = campaign.api.wait_for_run(run, SECONDS)
    with campaign.ledger() as ledger:
        [(halted_at,)] = ledger.execute("SELECT since FROM lifecycle.halts").fetchall()
    out, last = len(accepted), max(mail.at for mail in accepted)
    sys.stdout.write(
        f"{out} of 1500 out; last mail {last - halted_at.timestamp():.2f} s after the halt, "
        f"{last - triggered_at:.2f} s after the click\n"
    )
    assert out < 1500
    assert last - halted_at.timestamp() < 5
    states = {task.task_id: task.state for task in campaign.api.tasks(run.dag_id, run.run_id)}
    assert states["send_batch"] == "skipped"
    stage.done(stage.order(OPERATOR, "resume", campaign=campaign.id))
    assert len(accepted) == out
    campaign.api.clear(ended)
    assert campaign.api.wait_for_run(ended, SECONDS).state == "success"
    assert campaign.copies() == dict.fromkeys(users, 1)


def test_without_the_ledger_nothing_is_sent_and_a_halt_says_so(stage: Stage) -> None:
    campaign, accepted = stage.campaign, stage.campaign.server.accepted
    users = campaign.add_users(1500)
    campaign.add_dag(retries=20)
    run = campaign.scheduled()
    until(lambda: len(accepted) >= 100, SECONDS, "100 mails are not out")
    with psycopg.connect(campaign.setting.postgres.url("postgres"), autocommit=True) as server:
        name = f"{campaign.id}_ledger"
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        out = len(accepted)
        halt = stage.order(OPERATOR, "halt")

        def tried() -> bool:
            [task] = campaign.api.tasks(halt.dag_id, halt.run_id)
            return task.state == "up_for_retry"

        until(tried, SECONDS, "the halt was not tried")
        assert len(accepted) <= out + 4  # one for each connection had passed the gate
        assert "the ledger's database cannot be reached; nothing was changed" in stage.log(halt)
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert stage.done(halt)["result"] == "sending is halted"
    campaign.api.wait_for_run(run, SECONDS)
    stage.done(stage.order(OPERATOR, "resume"))
    campaign.api.clear(run)
    campaign.api.wait_for_run(run, SECONDS)
    assert max(campaign.copies().values()) == 1
    in_doubt = [user for user, state in campaign.states().items() if state == "in_doubt"]
    assert set(campaign.copies()) | set(in_doubt) == set(users)
