"""The local stack as ``make up`` starts it: days are sent by the real scheduler, and nothing is left behind.

Three campaigns of a team's own stand beside the examples: one whose alert callback hangs until the test lets it go,
one whose mail server takes the first batch only, and one whose provider takes a mail every six seconds.
"""

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest

from bench.throttle import largest_excess
from local_stack.airflow_api import AirflowApi, Run
from local_stack.errors import StackError
from local_stack.mail_store import MailStore
from local_stack.ports import free_port, is_free
from local_stack.settings import PROJECT, Settings
from local_stack.stack import CAMPAIGNS, LocalStack, newest_scheduled, send_one_day
from tests.address_search import addresses_in_files, addresses_in_postgres
from tests.scripted_smtp_server import ScriptedSmtpServer
from tests.smtp_script import Reply

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]


HANGING, REFUSED, THROTTLED = "hanging_alert", "refused_batch", "throttled_mails"
MAILS_PER_SECOND = 1 / 6  # so that the next turn is further away than a task waits for it
OF_ITS_OWN = """
    SELECT '{campaign}-' || number AS user_id, 'user' || number || '@example.com' AS email
    FROM generate_series(1, {users}) AS number
    WHERE %(cohort_start)s < %(cohort_end)s
"""
MAILED_TODAY = """
    UNION ALL
    SELECT * FROM (
        SELECT user_id::text, email FROM users
        WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s AND NOT email_opt_out
        ORDER BY user_id LIMIT 20
    ) AS over_the_cap
"""


class TeamProject:
    """A project folder with the product as it is, and campaigns of a test's own beside the examples."""

    def __init__(self, root: Path) -> None:
        self.path = root
        for name in ("plugins", "local_stack"):
            (root / name).symlink_to(PROJECT / name)
        for name in ("dags", "include"):
            shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, campaign_id: str, audience: str, dag: str, **fields: object) -> None:
        """Write a campaign: its file, its audience, its template and its DAG file."""
        files = {
            f"include/audiences/{campaign_id}.sql": audience,
            f"include/templates/{campaign_id}/subject.txt.j2": "Hello",
            f"include/templates/{campaign_id}/body.txt.j2": "Reference: {{ campaign }}/{{ user_id }}\n",
            f"include/templates/{campaign_id}/body.html.j2": "<p>Reference: {{ campaign }}/{{ user_id }}</p>",
            f"include/campaigns/{campaign_id}.yaml": json.dumps(
                {
                    "id": campaign_id, "schedule": "0 6 * * *", "timezone": "UTC", "offset_days": 4,
                    "audience": f"{campaign_id}.sql", "from": "Team <hello@example.com>", **fields,
                }
            ),
            f"dags/{campaign_id}.py": dedent(dag),
        }  # fmt: skip
        for name, text in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


@pytest.fixture(scope="module")
def silent_chat() -> Iterator[socket.socket]:
    """Give the listening socket of a chat that the hanging callback talks to; the test answers, or does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(300)
        yield listener


@pytest.fixture(scope="module")
def tired_server() -> Iterator[ScriptedSmtpServer]:
    """Give a mail server that serves one connection, and refuses all later ones for now."""
    with ScriptedSmtpServer() as server:
        server.on("connect", Reply(220, "scripted.example.com ESMTP"), times=1)
        server.on("connect", Reply(421, "4.3.2 not today"))
        yield server


@pytest.fixture(scope="module")
def slow_provider() -> Iterator[ScriptedSmtpServer]:
    """Give the mail server that the throttle stands before."""
    with ScriptedSmtpServer() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, silent_chat: socket.socket) -> Path:
    project = TeamProject(tmp_path_factory.mktemp("project"))
    project.add(
        HANGING,
        OF_ITS_OWN.format(campaign=HANGING, users=20) + MAILED_TODAY,
        f"""
        '''An Airflow DAG whose alert callback waits for an answer.'''
        import socket
        from datetime import UTC, datetime

        from lifecycle_emails import lifecycle_dag


        def tell_the_chat(context):
            with socket.create_connection({silent_chat.getsockname()!r}) as chat:
                chat.sendall(chat.recv(1))


        dag = lifecycle_dag(
            "{HANGING}", start_date=datetime(2026, 1, 1, tzinfo=UTC), on_limit_exceeded=[tell_the_chat]
        )
        """,
    )
    project.add(
        REFUSED,
        OF_ITS_OWN.format(campaign=REFUSED, users=20),
        f"""
        '''An Airflow DAG that gives up soon.'''
        from datetime import UTC, datetime, timedelta

        from lifecycle_emails import lifecycle_dag

        dag = lifecycle_dag(
            "{REFUSED}",
            start_date=datetime(2026, 1, 1, tzinfo=UTC),
            on_limit_exceeded=[print],
            default_args={{
                "retries": 1, "retry_delay": timedelta(seconds=1), "max_active_tis_per_dagrun": 1,
            }},
        )
        """,
        batch_size=10,
        connections=1,
        smtp_conn_id="tired_server",
    )
    project.add(
        THROTTLED,
        OF_ITS_OWN.format(campaign=THROTTLED, users=6),
        f"""
        '''An Airflow DAG whose provider is slow.'''
        from datetime import UTC, datetime

        from lifecycle_emails import lifecycle_dag

        dag = lifecycle_dag(
            "{THROTTLED}", start_date=datetime(2026, 1, 1, tzinfo=UTC), on_limit_exceeded=[print]
        )
        """,
        batch_size=3,
        connections=1,
        smtp_conn_id="slow_provider",
    )
    throttles = {"slow_provider": {"mails_per_second": MAILS_PER_SECOND}}
    (project.path / "include" / "throttles.yaml").write_text(json.dumps(throttles))
    return project.path


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Settings:
    return Settings(
        state=tmp_path_factory.mktemp("stack"),
        postgres_port=free_port(),
        smtp_port=free_port(),
        inbox_port=free_port(),
        airflow_port=free_port(),
        project=project,
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


@pytest.fixture(scope="module")
def day_sent(api: AirflowApi) -> list[Run]:
    """Let the scheduler send one day of the example campaigns."""
    return send_one_day(api)


@pytest.fixture(scope="module")
def team_runs(
    api: AirflowApi, day_sent: list[Run], tired_server: ScriptedSmtpServer, slow_provider: ScriptedSmtpServer
) -> dict[str, Run]:
    """Let the scheduler start the newest run of each of the team's campaigns."""
    extra = json.dumps({"disable_tls": True, "disable_ssl": True})
    for name, server in (("tired_server", tired_server), ("slow_provider", slow_provider)):
        api.set_connection(name, "smtp", host="127.0.0.1", port=server.port, extra=extra)
    campaigns = (HANGING, REFUSED, THROTTLED)
    api.wait_for_dags(campaigns)
    for campaign in campaigns:
        api.unpause(campaign)
    return {campaign: newest_scheduled(api, campaign) for campaign in campaigns}


def states(stack: LocalStack, campaign: str) -> dict[str, int]:
    with psycopg.connect(stack.postgres.url("lifecycle")) as ledger:
        return dict(
            ledger.execute(
                "SELECT concat_ws('/', state, held_reason), count(*) FROM lifecycle.sends WHERE campaign = %s GROUP BY 1",
                (campaign,),
            ).fetchall()
        )


def caught(stack: LocalStack, campaign: str) -> list[int]:
    """Return how many copies the catcher has of each of the campaign's mails."""
    copies = MailStore(stack.settings.mails).copies()
    return [count for (of_campaign, _), count in copies.items() if of_campaign == campaign]


def wait_for(condition: Callable[[], bool], otherwise: Callable[[], str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def task_states(api: AirflowApi, run: Run, task_id: str) -> list[str | None]:
    tasks = api.tasks(run.dag_id, run.run_id)
    return sorted((task.state for task in tasks if task.task_id == task_id), key=str)


def test_scheduler_sends_one_day_and_a_rerun_sends_nothing(
    stack: LocalStack, api: AirflowApi, day_sent: list[Run]
) -> None:
    runs = day_sent
    assert [(run.dag_id, run.run_type, run.state) for run in runs] == [
        (campaign, "scheduled", "success") for campaign in CAMPAIGNS
    ]
    copies = MailStore(stack.settings.mails).copies()
    assert len(copies) > 300
    assert set(copies.values()) == {1}
    assert sum(states(stack, campaign).get("sent", 0) for campaign in CAMPAIGNS) == len(copies)

    api.clear(runs[0])
    assert api.wait_for_run(api.run(runs[0].dag_id, runs[0].run_id), 120).state == "success"
    assert MailStore(stack.settings.mails).copies() == copies


def leased_batches(stack: LocalStack, campaign: str) -> set[int]:
    with psycopg.connect(stack.postgres.url("lifecycle")) as ledger:
        query = "SELECT batch FROM lifecycle.batches WHERE campaign = %s AND lease_until > now()"
        return {batch for (batch,) in ledger.execute(query, (campaign,))}


def test_task_that_waits_for_the_throttle_gives_its_slot_and_its_lease_back(
    stack: LocalStack, api: AirflowApi, team_runs: dict[str, Run], slow_provider: ScriptedSmtpServer
) -> None:
    run = team_runs[THROTTLED]

    def waits_without_lease() -> bool:
        tasks = api.tasks(run.dag_id, run.run_id)
        waiting = {task.map_index for task in tasks if task.state == "up_for_reschedule"}  # each has a batch
        return bool(waiting - leased_batches(stack, THROTTLED))

    wait_for(waits_without_lease, lambda: f"{states(stack, THROTTLED)}, {api.tasks(run.dag_id, run.run_id)}")
    assert states(stack, THROTTLED).keys() <= {"ready", "sent"}
    run = api.wait_for_run(run, 300)
    assert run.state == "success"
    assert states(stack, THROTTLED) == {"sent": 6}
    assert sorted(slow_provider.copies().values()) == [1] * 6
    arrived = [mail.at for mail in slow_provider.accepted]
    assert largest_excess(arrived, MAILS_PER_SECOND) <= 2


def test_callback_that_hangs_delays_no_mail(
    stack: LocalStack, api: AirflowApi, team_runs: dict[str, Run], silent_chat: socket.socket
) -> None:
    run = team_runs[HANGING]
    chat, _ = silent_chat.accept()
    with chat:  # from here on the callback waits for an answer
        judged = states(stack, HANGING)
        assert judged["held/capped"] > 0
        mails = sum(judged.get(state, 0) for state in ("ready", "sending", "sent"))
        assert mails >= 20
        wait_for(
            lambda: len(caught(stack, HANGING)) == mails,
            lambda: f"{states(stack, HANGING)}, {api.tasks(run.dag_id, run.run_id)}",
        )
        assert task_states(api, run, "alert") == ["running"]
        assert not api.run(run.dag_id, run.run_id).ended
        chat.sendall(b"1")
        chat.settimeout(60)
        assert chat.recv(1) == b"1"  # it was the callback that waited, up to now
    assert api.wait_for_run(run, 120).state == "success"
    assert task_states(api, run, "alert") == ["success"]
    assert caught(stack, HANGING) == [1] * mails
    assert states(stack, HANGING)["sent"] == mails


def test_batch_out_of_retries_fails_the_run(
    stack: LocalStack, api: AirflowApi, team_runs: dict[str, Run], tired_server: ScriptedSmtpServer
) -> None:
    run = api.wait_for_run(team_runs[REFUSED], 300)
    assert run.state == "failed"
    assert task_states(api, run, "send_batch") == ["failed", "success"]
    assert task_states(api, run, "reconcile") == ["failed"]
    tasks = api.tasks(run.dag_id, run.run_id)
    (given_up,) = [task for task in tasks if task.task_id == "send_batch" and task.state == "failed"]
    assert given_up.try_number == 2
    assert states(stack, REFUSED) == {"sent": 10, "ready": 10}
    assert sorted(tired_server.copies().values()) == [1] * 10


def test_airflow_reads_every_dag_and_its_log_can_be_read(api: AirflowApi) -> None:
    assert api.import_errors() == []
    (run,) = api.runs(CAMPAIGNS[0], run_type="scheduled")
    (task,) = [task for task in api.tasks(run.dag_id, run.run_id) if task.task_id == "reconcile"]
    assert "users by cohort and state" in api.log(run.dag_id, run.run_id, task)


def test_no_address_stands_in_airflow_its_logs_or_the_ledger(stack: LocalStack, day_sent: list[Run]) -> None:
    with psycopg.connect(stack.postgres.url("lifecycle"), autocommit=True) as ledger:
        assert list(addresses_in_postgres(ledger, "lifecycle")) == []
    with psycopg.connect(stack.postgres.url("airflow"), autocommit=True) as metadata:
        assert list(addresses_in_postgres(metadata, "public")) == []
    logs = stack.settings.state / "airflow" / "logs"
    assert any(logs.rglob("*.log"))
    assert list(addresses_in_files(logs)) == []


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
