"""Who may do what: fifty times the usual size before a person, and a viewer who tries everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lifecycle_emails.order import Action
from local_stack.airflow_api import Run
from local_stack.browser import in_browser, log_in
from local_stack.errors import StackError
from local_stack.settings import PROJECT
from reliability.fault_bench.airflow_campaign import RUN_SECONDS, AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_dag_files import DAG_FILE
from reliability.fault_bench.airflow_endings import must_be
from reliability.fault_bench.airflow_stack import airflow_stack, until
from reliability.fault_bench.fault import Setting
from reliability.stories.people import APPROVER, USER, VIEWER, password_of
from reliability.stories.story import Story, Told, one_copy_each

USUAL, UNUSUAL = 4, 200
HISTORY_DAYS = 5
OPERATIONS = """\
from lifecycle_emails import lifecycle_operations_dag

dag = lifecycle_operations_dag(dag_id={dag_id!r}, include_dir={include!r}, ledger_conn_id={ledger!r})
"""


def approve_in_the_ui(setting: Setting) -> Told:
    """Fifty times the usual size: nobody is mailed until the approver says so under required actions."""
    with airflow_campaign(
        airflow_stack(setting.postgres), setting, volume={"factor": 3, "floor": 10, "approvers": [APPROVER]}
    ) as campaign:
        for days_ago in range(1, HISTORY_DAYS + 1):
            campaign.add_users(USUAL, days_ago)
        campaign.add_dag(days_back=HISTORY_DAYS + 2)
        first = campaign.scheduled()
        campaign.wait(first)
        campaign.wait(*campaign.backfill(campaign.id, _ago(first, HISTORY_DAYS), _ago(first, 1)))
        flood = campaign.add_users(UNUSUAL)
        run = campaign.api.trigger(campaign.id, conf={"cohort_date": campaign.cohort().isoformat()})
        until(
            lambda: _state(campaign, run, "approve_volume") == "awaiting_input",
            RUN_SECONDS,
            "nobody is asked",
        )
        held = sum(campaign.copies()[user] == 0 for user in flood)
        problems = (
            []
            if held == UNUSUAL
            else [f"{UNUSUAL - held} mails of the flood are out before anybody approved"]
        )
        in_browser(lambda page: _approve(page, campaign, run))
        problems += must_be(campaign, run, "success", "it was approved")
        with campaign.ledger() as ledger:
            decided = ledger.execute(
                "SELECT decided_by, verdict::text FROM lifecycle.volume_decisions WHERE cohort_date = %s",
                [campaign.cohort()],
            ).fetchall()
        if decided != [(APPROVER, "approved")]:
            problems.append(f"the ledger says of the decision: {decided}")
        return Told(problems + one_copy_each(campaign, flood), {"breaker_held": held})


def _approve(page: Any, campaign: AirflowCampaign, run: Run) -> None:
    """As a person does it: log in, open the run's required actions, choose."""
    airflow = campaign.stack.url
    log_in(page, airflow, APPROVER, password_of(campaign.stack, APPROVER))
    page.goto(f"{airflow}/dags/{run.dag_id}/runs/{run.run_id}/tasks/approve_volume/required_actions")
    page.get_by_text("unusual size").first.wait_for()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text(APPROVER).first.wait_for()


def unauthorised(setting: Setting) -> Told:
    """A viewer, and a user who is no approver, try what they must not; each attempt is refused."""
    with airflow_campaign(
        airflow_stack(setting.postgres), setting, volume={"without_history": 5, "approvers": [APPROVER]}
    ) as campaign:
        users = campaign.add_users(20)
        operations = _add_operations(campaign)
        campaign.add_dag()
        run = campaign.scheduled()
        until(
            lambda: _state(campaign, run, "approve_volume") == "awaiting_input",
            RUN_SECONDS,
            "nobody is asked",
        )
        order = {"reason": "tried", "campaign": campaign.id}
        with _login(campaign, VIEWER) as viewer, _login(campaign, USER) as user:
            attempts: list[Callable[[], object]] = [
                *(
                    lambda action=action: viewer.trigger(operations, conf={**order, "action": action.value})
                    for action in Action
                ),
                lambda: viewer.trigger(campaign.id, conf={"cohort_date": campaign.cohort().isoformat()}),
                lambda: viewer.clear(run),
                lambda: viewer.mark_run(run, "failed"),
                lambda: viewer.backfill(campaign.id, _ago(run, 2), _ago(run, 1)),
                lambda: viewer.answer(run, "approve_volume", "Send"),
                lambda: user.answer(run, "approve_volume", "Send"),
            ]  # fmt: skip
            refused = sum(map(_is_refused, attempts))
        problems = (
            [] if refused == len(attempts) else [f"{len(attempts) - refused} attempts were not refused"]
        )
        with campaign.ledger() as ledger:
            acted = ledger.execute("SELECT count(*) FROM lifecycle.actions").fetchone()
        if acted != (0,) or campaign.copies().total():
            problems.append(
                f"{acted} actions in the audit, {campaign.copies().total()} of {len(users)} mailed"
            )
        return Told(problems, {"unauthorised_tried": len(attempts), "unauthorised_refused": refused})


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except StackError as error:
        return ": 403 " in str(error)
    return False


def _add_operations(campaign: AirflowCampaign) -> str:
    """The operators' DAG for this campaign's ledger."""
    dag_id = f"{campaign.id}_operations"
    body = OPERATIONS.format(dag_id=dag_id, include=str(campaign.include), ledger=f"{campaign.id}_ledger")
    text = DAG_FILE.format(
        tree=str(campaign.setting.tree), project=str(PROJECT), folder=str(campaign.folder), body=body
    )
    (campaign.stack.dags / f"{dag_id}.py").write_text(text)
    campaign.dags.append((campaign.stack, dag_id))
    campaign.api.wait_for_dags([dag_id], RUN_SECONDS)
    return dag_id


def _login(campaign: AirflowCampaign, who: str) -> Any:
    return campaign.api.logged_in_as(who, password_of(campaign.stack, who))


def _state(campaign: AirflowCampaign, run: Run, task_id: str) -> str | None:
    tasks = campaign.api.tasks(run.dag_id, run.run_id)
    return next((task.state for task in tasks if task.task_id == task_id), None)


def _ago(run: Run, days: int) -> Any:
    assert run.logical_date is not None  # noqa: S101  (a scheduled run)
    return run.logical_date - timedelta(days=days)


STORIES = (
    Story("a cohort of 50 times the usual size is approved in the UI", approve_in_the_ui, "unusual-size"),
    Story("a viewer tries everything", unauthorised),
)
