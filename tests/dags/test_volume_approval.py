"""The breaker in a DAG run: who is asked, what an answer does. Answers are given as Airflow's API gives them."""

import threading
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import handle_event_submit
from airflow.sdk.timezone import utcnow
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from lifecycle_emails.ledger.approving import decide_volume
from lifecycle_emails.volume import VolumeVerdict
from local_stack.mail_store import Search
from tests.dags.conftest import states_of
from tests.dags.daily_dag import CAMPAIGN, NOTHING_TO_APPROVE, SENT_RUN, DailyDag, once_each, today

COHORT = today() - timedelta(days=4)
ASKED_RUN = {
    **SENT_RUN,
    "approve_volume": "success",
    "record_approval": "success",
    "limit_rate_approved": "success",
    "send_approved 0": "success",
}
del ASKED_RUN["send_approved"], ASKED_RUN["send_batch 0"]
ASKED_RUN["send_batch"] = "skipped"


@pytest.fixture
def daily(daily: DailyDag) -> DailyDag:
    """The daily DAG of a campaign whose cohorts have had one user a day."""
    write_volume(daily, "factor: 3\n  floor: 2\n  without_history: 2\n  approvers: [ada]")
    return daily


def write_volume(daily: DailyDag, text: str) -> None:
    name = f"campaigns/{CAMPAIGN}.yaml"
    campaign = (daily.project.include.path / name).read_text().partition("volume:")[0]
    daily.project.include.write(name, f"{campaign}volume:\n  {text}\n")


class Answering:
    """Somebody who answers whatever the run asks, as the response handler of Airflow's API does."""

    def __init__(self, option: str, user: str | None = "ada") -> None:
        self.option, self.user = option, user
        self.asked: list[dict[str, Any]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Answering":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.2):
            with create_session() as session:
                waiting = session.query(TaskInstance).filter_by(state=TaskInstanceState.AWAITING_INPUT).all()
                for task in waiting:
                    self._answer(session, task)

    def _answer(self, session: Any, task: TaskInstance) -> None:
        detail = session.get(HITLDetail, task.id)
        self.asked.append(
            {
                "subject": detail.subject,
                "body": detail.body,
                "options": detail.options,
                "defaults": detail.defaults,
                "assigned": detail.assignees and [user["id"] for user in detail.assignees],
            }
        )
        detail.responded_by = {"id": self.user, "name": self.user} if self.user else None
        detail.responded_at = utcnow()
        detail.chosen_options = [self.option]
        detail.params_input = {}
        event = TriggerEvent(detail.as_resume_event_payload(timedout=self.user is None))
        handle_event_submit(event, task_instance=task, session=session)


def verdict(daily: DailyDag, day: date = COHORT) -> tuple[Any, ...]:
    row = daily.ledger.execute(
        "SELECT volume_verdict::text, volume_size, volume_decided_by, volume_reason FROM lifecycle.cohorts"
        " WHERE campaign = %s AND cohort_date = %s",
        (CAMPAIGN, day),
    ).fetchone()
    assert row is not None
    return tuple(row)


def the_task(run: DagRun, task_id: str) -> TaskInstance:
    (task,) = (task for task in run.get_task_instances() if task.task_id == task_id)
    return task


def skipped_without_a_worker(run: DagRun) -> bool:
    """Whether approve_volume was skipped by the task before it; one that skips itself has made a try."""
    task = the_task(run, "approve_volume")
    return (str(task.state), task.try_number) == ("skipped", 0)


def test_cohort_of_unusual_size_is_sent_once_it_is_approved(daily: DailyDag) -> None:
    daily.add_users(*range(1, 6))

    with Answering("Send") as ada:
        run = daily.run()

    assert states_of(run) == ASKED_RUN
    assert str(run.state) == "success"
    assert daily.copies() == once_each(*range(1, 6))
    assert verdict(daily) == ("approved", 5, "ada", "answered in Airflow: Send")
    (asked,) = ada.asked
    assert (asked["options"], asked["defaults"]) == (["Send", "Do not send"], ["Do not send"])
    assert f"- **{COHORT}**: too many: 5 users. The 4 weeks before have 0 cohorts" in asked["body"]
    (told,) = daily.catcher.store.mails(Search(alerts_only=True))
    assert told.subject == f"Approval needed: {CAMPAIGN}: send a cohort of unusual size?"

    again = daily.run()

    assert states_of(again)["approve_volume"] == "skipped"
    assert daily.copies() == once_each(*range(1, 6))


@pytest.mark.parametrize(
    ("user", "decided_by", "reason"),
    [("ada", "ada", "answered in Airflow: Do not send"), (None, "nobody", "no answer in time")],
)
def test_cohort_of_unusual_size_is_refused_until_a_person_releases_it(
    daily: DailyDag, user: str | None, decided_by: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(*range(1, 6))

    with Answering("Do not send", user):
        run = daily.run()

    assert states_of(run)["record_approval"] == "success"
    assert {states_of(run)[task] for task in ("limit_rate_approved", "send_approved")} == {"skipped"}
    assert str(run.state) == "success"
    assert daily.copies() == {}
    assert set(daily.states().values()) == {"planned"}
    assert verdict(daily) == ("refused", 5, decided_by, reason)
    assert f"Cohort {COHORT} was refused by {decided_by} (too many: 5 users." in capfd.readouterr().out

    again = daily.run()

    assert states_of(again)["approve_volume"] == "skipped"
    assert daily.copies() == {}

    decide_volume(daily.ledger, CAMPAIGN, COHORT, VolumeVerdict.APPROVED, "bob", "it is a fair")

    assert states_of(daily.run()) == SENT_RUN
    assert daily.copies() == once_each(*range(1, 6))


def test_cohort_of_usual_size_asks_nobody(daily: DailyDag) -> None:
    daily.add_users(1, 2)

    with Answering("Do not send") as ada:
        run = daily.run()

    assert ada.asked == []
    assert states_of(run) == SENT_RUN
    assert {task for task, state in states_of(run).items() if state == "skipped"} - {
        "alert"
    } == NOTHING_TO_APPROVE
    assert skipped_without_a_worker(run)
    assert the_task(run, "check_volume").xcom_pull(task_ids="check_volume") == {COHORT.isoformat(): "within"}


def test_dry_run_asks_nobody_and_takes_no_worker_for_it(daily: DailyDag) -> None:
    daily.add_users(*range(1, 6))

    run = daily.run(run_conf={"cohort_date": COHORT.isoformat(), "dry_run": True})

    assert states_of(run)["approve_volume"] == "skipped"
    assert skipped_without_a_worker(run)


def test_cohort_of_a_source_that_is_not_fresh_awaits_with_the_time_in_the_question(daily: DailyDag) -> None:
    write_volume(daily, "freshness: fresh.sql")
    daily.project.include.write("audiences/fresh.sql", "SELECT max(created_at) FROM users")
    daily.add_users(1)

    with Answering("Do not send") as ada:
        daily.run()

    (asked,) = ada.asked
    midnight = datetime.combine(COHORT, datetime.min.time()) + timedelta(hours=1)
    assert f"complete until: {midnight:%Y-%m-%d %H:%M} UTC" in asked["body"]
    assert daily.copies() == {}
