"""The local stack as ``make up`` starts it: one day is sent by the real scheduler, and nothing is left behind."""

from collections.abc import Iterator

import psycopg
import pytest

from local_stack.airflow_api import AirflowApi
from local_stack.errors import StackError
from local_stack.mail_store import MailStore
from local_stack.ports import free_port, is_free
from local_stack.settings import Settings
from local_stack.stack import CAMPAIGNS, LocalStack, send_one_day

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        state=tmp_path_factory.mktemp("stack"),
        postgres_port=free_port(),
        smtp_port=free_port(),
        inbox_port=free_port(),
        airflow_port=free_port(),
    )


@pytest.fixture(scope="module")
def stack(settings: Settings) -> Iterator[LocalStack]:
    stack = LocalStack(settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.erase()


@pytest.fixture(scope="module")
def api(stack: LocalStack) -> Iterator[AirflowApi]:
    with stack.api() as api:
        yield api


def sent(stack: LocalStack) -> int:
    with psycopg.connect(stack.postgres.url("lifecycle")) as ledger:
        row = ledger.execute("SELECT count(*) FROM lifecycle.sends WHERE state = 'sent'").fetchone()
    assert row is not None
    return int(row[0])


def test_scheduler_sends_one_day_and_a_rerun_sends_nothing(stack: LocalStack, api: AirflowApi) -> None:
    runs = send_one_day(api)
    assert [(run.dag_id, run.run_type, run.state) for run in runs] == [
        (campaign, "scheduled", "success") for campaign in CAMPAIGNS
    ]
    copies = MailStore(stack.settings.mails).copies()
    assert len(copies) > 300
    assert set(copies.values()) == {1}
    assert sent(stack) == len(copies)

    api.clear(runs[0])
    assert api.wait_for_run(api.run(runs[0].dag_id, runs[0].run_id), 120).state == "success"
    assert MailStore(stack.settings.mails).copies() == copies


def test_airflow_reads_every_dag_and_its_log_can_be_read(api: AirflowApi) -> None:
    assert api.import_errors() == []
    (run,) = api.runs(CAMPAIGNS[0], run_type="scheduled")
    (task,) = [task for task in api.tasks(run.dag_id, run.run_id) if task.task_id == "reconcile"]
    assert "users by cohort and state" in api.log(run.dag_id, run.run_id, task)


def test_second_stack_says_which_port_is_taken(stack: LocalStack, settings: Settings) -> None:
    other = LocalStack(
        Settings(
            state=settings.state / "other",
            postgres_port=free_port(),
            smtp_port=settings.smtp_port,
            inbox_port=free_port(),
            airflow_port=free_port(),
        )
    )
    with pytest.raises(StackError, match=f"Port {settings.smtp_port} is taken.*SMTP_PORT="):
        other.start()
    other.erase()
    assert stack.is_running()


def test_stop_leaves_no_process_and_no_port(stack: LocalStack, settings: Settings) -> None:
    assert all(stack.states().values())
    stack.stop()
    assert stack.states() == {"postgres": False}
    ports = (settings.postgres_port, settings.smtp_port, settings.inbox_port, settings.airflow_port)
    assert all(map(is_free, ports))
