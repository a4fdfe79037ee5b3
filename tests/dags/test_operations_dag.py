"""The operators' DAG: its form takes sensible orders only, and a run carries one out in its user's name."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

from lifecycle_emails.ledger.actions import list_actions
from lifecycle_emails.order import Action
from local_stack.catcher import Catcher
from tests.dags.conftest import MakeConnection, Project, RunDag, states_of
from tests.integration.ledger.rows import add_cohort, add_sends, states

CAMPAIGN = "welcome"
REASON = "wrong template"
RECIPIENT = json.dumps({"conn_type": "generic", "login": "tester@example.com"})


@pytest.fixture
def operate(project: Project, run_dag: RunDag, ledger: Any) -> Any:
    project.write_dag("lifecycle_operations", call='lifecycle_operations_dag(default_args={"retries": 0})')
    path = project.dags / "lifecycle_operations.py"
    path.write_text(
        path.read_text().replace(
            "import lifecycle_dag, lifecycle_maintenance_dag", "import lifecycle_operations_dag"
        )
    )

    def run(**conf: Any) -> Any:
        return run_dag("lifecycle_operations", run_conf={"reason": REASON, **conf})

    return run


@pytest.fixture
def form(example_dags: DagBag) -> DAG:
    return example_dags.dags["lifecycle_operations"]


def filled(form: DAG, **conf: Any) -> dict[str, Any]:
    params = deepcopy(form.params)  # validating keeps the values
    params.update({"action": "halt", "reason": REASON, **conf})
    return params.validate()


def test_form_offers_every_action_with_what_it_means(form: DAG) -> None:
    schema = form.params.get_param("action").schema
    assert schema["enum"] == [str(action) for action in Action]
    assert set(schema["values_display"]) == set(schema["enum"])
    assert form.params.get_param("campaign").schema["examples"] == ["day4_follow_up", "day4_setup_help"]


def test_form_fits_a_person_on_call(form: DAG) -> None:
    assert form.is_paused_upon_creation is False
    assert form.max_active_runs > 1
    assert form.get_task("operate").priority_weight == 1000
    for action in Action:
        assert f"`{action}`" in (form.doc_md or "")


@pytest.mark.parametrize(
    "conf",
    [
        {"action": "explode"},
        {"action": None},
        {"reason": ""},
        {"reason": "   "},
        {"reason": "asked by ada@example.com"},
        {"campaign": "ada@example.com"},
        {"user_ids": ["ada@example.com"]},
        {"user_ids": "42"},
        {"recipient": "ada@example.com"},
        {"cohort_from": "1st of May"},
        {"days": 0},
        {"days": 367},
        {"days": "3"},
        {"approved_users": -1},
        {"earlier_extensions": -1},
        {"everybody": "yes"},
    ],
    ids=str,
)
def test_form_refuses_what_makes_no_sense(form: DAG, conf: dict[str, Any]) -> None:
    filled(form)
    with pytest.raises(ParamValidationError):
        filled(form, **conf)


def test_form_cannot_be_left_without_action_and_reason(form: DAG) -> None:
    with pytest.raises(ParamValidationError):
        deepcopy(form.params).validate()


def test_form_requires_action_and_reason_only(form: DAG) -> None:
    required = {name for name in form.params if "null" not in form.params.get_param(name).schema["type"]}
    assert required == {"action", "reason"}


def test_form_asks_for_no_recipient_where_no_test_is_sent(form: DAG) -> None:
    assert filled(form, recipient=None)["recipient"] is None


def test_halt_and_resume_are_done_in_the_name_of_the_user(operate: Any, ledger: Any) -> None:
    run = operate(action="halt", campaign=CAMPAIGN)
    assert states_of(run) == {"operate": "success"}
    assert ledger.execute("SELECT campaign, halted_by, reason FROM lifecycle.halts").fetchall() == [
        (CAMPAIGN, "dag_test", REASON)
    ]
    [kept] = list_actions(ledger)
    assert (kept.actor, kept.actor_kind, kept.action, kept.result) == (
        "dag_test", "airflow", "halt", "sending is halted",
    )  # fmt: skip
    assert kept.run_key == f"lifecycle_operations {run.run_id}"
    operate(action="resume", campaign=CAMPAIGN)
    assert ledger.execute("SELECT lifted_by FROM lifecycle.halts").fetchall() == [("dag_test",)]


def test_fields_left_empty_say_nothing(operate: Any, ledger: Any) -> None:
    empty = dict.fromkeys(["user_ids", "cohort_from", "everybody", "days", "earlier_extensions", "recipient"])
    assert states_of(operate(action="halt", campaign=CAMPAIGN, **empty)) == {"operate": "success"}
    [kept] = list_actions(ledger)
    assert kept.arguments == {"campaign": CAMPAIGN}


def test_release_settles_nothing_and_judges_again(operate: Any, ledger: Any) -> None:
    add_cohort(ledger, CAMPAIGN)
    add_sends(ledger, ["1", "2"], CAMPAIGN, state="rejected")
    operate(action="release", campaign=CAMPAIGN, user_ids=["1", " "])
    assert states(ledger, CAMPAIGN) == {"1": "planned", "2": "rejected"}


def test_two_runs_of_the_form_extend_one_range_once(
    operate: Any, ledger: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add_cohort(ledger, CAMPAIGN)
    day = ledger.execute("SELECT cohort_date::text FROM lifecycle.cohorts").fetchone()[0]
    extend = {
        "action": "extend", "campaign": CAMPAIGN, "cohort_from": day, "cohort_to": day, "days": 3,
        "approved_users": 0,
    }  # fmt: skip
    before = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()[0]
    assert states_of(operate(**extend)) == {"operate": "success"}
    capsys.readouterr()
    assert states_of(operate(**extend)) == {"operate": "failed"}
    assert "extended 1 time before, last by dag_test at " in capsys.readouterr().out
    after = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()[0]
    assert after - before == timedelta(days=3)
    assert states_of(operate(**extend, earlier_extensions=1)) == {"operate": "success"}
    assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchone()[0] - after == timedelta(
        days=3
    )


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"action": "release", "user_ids": ["1"]}, "release: name the campaign. Nothing was changed"),
        ({"action": "halt", "campaign": "welcom"}, "there is no campaign welcom"),
        ({"action": "settle_as_sent", "campaign": CAMPAIGN, "everybody": True}, "nothing was changed"),
        ({"action": "halt", "note": "to all"}, "there is no parameter note; nothing was changed"),
    ],
)
def test_order_that_cannot_be_done_is_one_clear_error(
    operate: Any, ledger: Any, capsys: pytest.CaptureFixture[str], conf: dict[str, Any], said: str
) -> None:
    add_cohort(ledger, CAMPAIGN)
    assert states_of(operate(**conf)) == {"operate": "failed"}
    assert said in capsys.readouterr().out
    assert list_actions(ledger) == []
    assert ledger.execute("SELECT count(*) FROM lifecycle.halts").fetchone() == (0,)


def test_test_mail_goes_to_the_address_of_the_connection(
    operate: Any,
    ledger: Any,
    source: Any,
    catcher: Catcher,
    project: Project,
    make_connection: MakeConnection,
) -> None:
    make_connection("lifecycle_test_recipient", RECIPIENT)
    source.execute(
        "INSERT INTO users (user_id, email, full_name, created_at) VALUES (7, 'ann@example.com', 'Ann', now())"
    )
    run = operate(action="send_test", campaign=CAMPAIGN, user_ids=["7"])
    assert states_of(run) == {"operate": "success"}
    [mail] = catcher.store.mails()
    assert mail.subject == "[test] Hello Ann"
    [kept] = list_actions(ledger)
    assert kept.arguments == {
        "campaign": CAMPAIGN, "user_ids": ["7"], "recipient": "lifecycle_test_recipient",
    }  # fmt: skip
    assert states(ledger, CAMPAIGN) == {}


def test_test_without_its_connection_says_what_to_make(
    operate: Any, ledger: Any, source: Any, catcher: Catcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert states_of(operate(action="send_test", campaign=CAMPAIGN)) == {"operate": "failed"}
    assert (
        "Airflow has no connection 'lifecycle_test_recipient' with an address as its login"
        in capsys.readouterr().out
    )
    assert list_actions(ledger) == []
