"""The daily DAG from beginning to end: real tasks, a real Postgres, real SMTP. The catcher's store is the judge."""

import json
from datetime import timedelta
from typing import Any

import pytest
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy import select

from lifecycle_emails.ledger.orders import halt, resume, suppress, unsuppress
from local_stack.mail_store import Search
from tests.dags.conftest import MakeConnection, smtp_connection, states_of
from tests.dags.daily_dag import CAMPAIGN, NOTHING_TO_APPROVE, SENT_RUN, DailyDag, once_each, today

STEPS = ("extract_cohort", "filter_ledger", "limit_rate", "send_batch")


def test_daily_dag_mails_the_cohort_once_and_a_second_run_nobody(daily: DailyDag) -> None:
    daily.add_users(1, 2, 3)
    daily.add_users(8, days_ago=3)

    run = daily.run()

    assert states_of(run) == SENT_RUN
    assert str(run.state) == "success"
    assert daily.copies() == once_each(1, 2, 3)

    steps = daily.ledger.execute(
        "SELECT step, run FROM lifecycle.cohort_steps WHERE cohort_date = %s ORDER BY started_at",
        (today() - timedelta(days=4),),
    ).fetchall()
    assert steps == [(step, f"{CAMPAIGN} {run.run_id}") for step in STEPS]

    again = daily.run()

    assert daily.copies() == once_each(1, 2, 3)
    assert str(again.state) == "success"
    assert {task for task, state in states_of(again).items() if state == "skipped"} == {
        "send_batch",
        "alert",
        *NOTHING_TO_APPROVE,
    }


def test_rerun_says_how_many_it_will_send(daily: DailyDag, capfd: pytest.CaptureFixture[str]) -> None:
    daily.add_users(1, 2)
    suppress(daily.ledger, user_id="2", reason="asked for it")
    first = daily.run()
    assert "This rerun will send" not in capfd.readouterr().out

    unsuppress(daily.ledger, user_id="2", reason="wants it again")
    daily.run()

    cohort = today() - timedelta(days=4)
    said = f"This rerun will send 1: cohort {cohort} was judged before, by run {CAMPAIGN} {first.run_id} at"
    assert said in capfd.readouterr().out
    assert daily.copies() == once_each(1, 2)


def test_run_with_a_shorter_deadline_mails_nobody_late(daily: DailyDag) -> None:
    daily.add_users(1, days_ago=6)
    conf = {"cohort_date": (today() - timedelta(days=6)).isoformat()}

    run = daily.run(run_conf={**conf, "max_lateness_days": 1})

    assert str(run.state) == "success"
    assert (daily.copies(), daily.states()) == ({}, {"1": "held stale"})

    daily.run(run_conf=conf)

    assert daily.copies() == once_each(1)


def events_of_cohorts() -> list[tuple[str | None, dict[str, Any]]]:
    with create_session() as session:
        events = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == f"lifecycle/{CAMPAIGN}")
            .order_by(AssetEvent.id)
        ).all()
        return [(event.partition_key, event.extra) for event in events]


def test_completed_cohort_is_one_asset_event_for_who_follows(daily: DailyDag) -> None:
    before = len(events_of_cohorts())
    cohort = (today() - timedelta(days=4)).isoformat()
    daily.add_users(1, 2)

    daily.run()

    counts = {"users": 2, "sent": 2, "held": 0, "rejected": 0, "in_doubt": 0}
    assert events_of_cohorts()[before:] == [(cohort, {"campaign": CAMPAIGN, "cohorts": {cohort: counts}})]

    daily.run()
    assert len(events_of_cohorts()) == before + 1

    daily.add_users(3)
    daily.run()

    assert [extra["cohorts"][key]["sent"] for key, extra in events_of_cohorts()[before:]] == [2, 3]


def test_mapped_tasks_are_named_by_batch_and_size(daily: DailyDag) -> None:
    daily.project.include.write(
        f"campaigns/{CAMPAIGN}.yaml",
        (daily.project.include.path / f"campaigns/{CAMPAIGN}.yaml").read_text() + "batch_size: 2\n",
    )
    daily.add_users(1, 2, 3)

    run = daily.run()

    names = {task.rendered_map_index for task in run.get_task_instances() if task.map_index >= 0}
    cohort = today() - timedelta(days=4)
    assert names == {f"{cohort} batch 0 (2 users)", f"{cohort} batch 1 (1 users)"}
    assert daily.copies() == once_each(1, 2, 3)


def test_xcom_holds_counts_and_no_people(daily: DailyDag) -> None:
    daily.add_users(4711, 4712)

    run = daily.run()

    values = {
        (task.task_id, key): task.xcom_pull(task_ids=task.task_id, key=key, map_indexes=task.map_index)
        for task in run.get_task_instances()
        for key in ("return_value", "counts")
    }
    said = json.dumps([value for value in values.values() if value is not None], default=str)
    assert values["extract_cohort", "return_value"]["found"] == 2
    assert values["limit_rate", "counts"]["ready"] == 2
    assert values["send_batch", "return_value"]["sent"] == 2
    assert "4711" not in said
    assert "@" not in said


def test_run_without_any_date_fails_with_what_to_do(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)

    run = daily.run(run_conf={})

    assert states_of(run)["extract_cohort"] == "failed"
    assert str(run.state) == "failed"
    assert "names no cohort. Trigger it again with one of them" in capfd.readouterr().out
    assert daily.states() == {}


def test_user_over_the_cap_is_held_and_the_team_told(daily: DailyDag) -> None:
    daily.project.include.write(
        "frequency_caps.yaml", "default:\n  one_per_week:\n    max_sends: 1\n    window: 7 days\n"
    )
    daily.add_users(1, 2)
    daily.ledger.execute(
        "INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone,"
        " offset_days, not_after) VALUES ('other', '2026-01-01', '2026-01-01', '2026-01-02', 'UTC', 4, now()"
        " + interval '1 day')"
    )
    daily.ledger.execute(
        "INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch) VALUES ('2', 'other',"
        " '2026-01-01', 1)"
    )
    daily.ledger.execute("UPDATE lifecycle.sends SET state = 'ready', ready_at = now()")

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "alert": "success"}
    assert daily.copies() == once_each(1)
    (alert,) = daily.catcher.store.mails(Search(alerts_only=True))
    assert alert.recipient == "team@example.com"
    assert alert.subject == "Frequency cap reached: 1 user in day4_follow_up"
    content = daily.catcher.store.content(alert.number)
    assert content is not None
    assert b"@example.com" not in content.partition(b"\n\n")[2]

    again = daily.run()

    assert states_of(again)["alert"] == "skipped"


def test_mail_server_that_is_away_loses_nobody(
    daily: DailyDag, make_connection: MakeConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1, 2)
    make_connection("lifecycle_smtp", smtp_connection(1))

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "send_batch 0": "failed", "reconcile": "failed"}
    assert str(run.state) == "failed"
    said = capfd.readouterr().out
    assert "send_batch failed: the log says why" in said
    assert "2 users are ready and were not mailed" in said
    assert set(daily.states().values()) == {"ready"}

    make_connection("lifecycle_smtp", smtp_connection(daily.catcher.port))

    assert states_of(daily.run()) == SENT_RUN
    assert daily.copies() == once_each(1, 2)


def test_halt_skips_the_sending_and_is_named_by_reconcile(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)
    halt(daily.ledger, reason="wrong template")

    run = daily.run()

    assert states_of(run) == {**SENT_RUN, "send_batch 0": "skipped", "reconcile": "failed"}
    said = capfd.readouterr().out
    assert "Sending is halted" in said
    assert "wrong template" in said
    assert daily.copies() == {}

    resume(daily.ledger, reason="mended")

    assert states_of(daily.run()) == SENT_RUN
    assert daily.copies() == once_each(1)


def test_template_that_does_not_compile_fails_the_sending_and_sends_the_new_text_once_mended(
    daily: DailyDag, capfd: pytest.CaptureFixture[str]
) -> None:
    daily.add_users(1)
    subject = f"templates/{CAMPAIGN}/subject.txt.j2"
    daily.project.include.write(subject, "Hello {% if %}")

    assert states_of(daily.run())["send_batch 0"] == "failed"
    assert "subject.txt.j2" in capfd.readouterr().out

    daily.project.include.write(subject, "Mended")

    assert states_of(daily.run()) == SENT_RUN
    assert [mail.subject for mail in daily.catcher.store.mails()] == ["Mended"]


def test_ledger_that_is_not_migrated_is_named(
    daily: DailyDag, empty_database: str, make_connection: MakeConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    make_connection("lifecycle_ledger", empty_database)

    run = daily.run()

    assert states_of(run)["extract_cohort"] == "failed"
    assert "lifecycle migrate" in capfd.readouterr().out
