"""The DAG by which people act on the ledger from Airflow's UI: one run is one order of one person.

Building it lists the campaigns' files and reads no database and no network. Who may trigger it is Airflow's
to say; what the orders mean is the core's.
"""

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param

from lifecycle_emails.campaign import campaign_ids
from lifecycle_emails.dag_docs import TASK_DOCS, operations_doc
from lifecycle_emails.dag_factory.arguments import (
    RETRIES,
    SHORT_TIMEOUT,
    calling_file,
    dag_arguments,
    found_include_dir,
)
from lifecycle_emails.operators import OperateOperator
from lifecycle_emails.order import DESCRIPTIONS, LONGEST_EXTENSION_DAYS, MOST_USERS, Action

TEST_RECIPIENT = "lifecycle_test_recipient"
"""Airflow connection whose login is the address that test mails go to."""

OPERATIONS_RUNS = 16
"""How many orders may be carried out at once: a halt waits for no settling."""

FIRST_IN_LINE = 1000
"""Priority of the task: when all workers are busy sending, the next free one takes it."""

# Sections of the form, which Airflow shows folded up below the fields that every action may need.
COHORTS = "Cohorts: extend, settle, release_cohort"
EXTENSION = "Deadlines: extend"
TEST = "Recipient: send_test"

NO_ADDRESS = "^[^@]*$"
REASON = r"^[^@]*[^@\s][^@]*$"


def lifecycle_operations_dag(
    *,
    dag_id: str = "lifecycle_operations",
    include_dir: str | Path | None = None,
    ledger_conn_id: str = "lifecycle_ledger",
    owner: str = "lifecycle",
    **dag_overrides: Any,
) -> DAG:
    """Build the DAG with the form for operators. One Airflow has it once.

    Whoever may trigger it in Airflow may give any of its orders; ``access_control`` among the overrides
    narrows that down where the auth manager knows it.

    :param include_dir: as for `lifecycle_dag`.
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger.
    :param dag_overrides: further arguments for the DAG.
    :raises ConfigurationError: an argument cannot be what it is.
    """
    dag_file, notes = calling_file(inspect.currentframe())
    include = found_include_dir(dag_file, include_dir)
    dag = DAG(
        dag_id,
        **dag_arguments(
            dag_overrides,
            description="For operators: halt, resume, settle, release, extend, suppress, test.",
            schedule=None,
            doc_md=operations_doc(notes),
            tags=["lifecycle"],
            default_args={
                "owner": owner,
                **RETRIES,
                "retries": 2,
                "retry_delay": timedelta(seconds=10),
                "priority_weight": FIRST_IN_LINE,
            },
            params=_form(campaign_ids(include)),
            max_active_runs=OPERATIONS_RUNS,
            # a paused DAG takes orders and does nothing, which is the last thing a halt should do
            is_paused_upon_creation=False,
        ),
    )
    dag.fileloc = str(dag_file)
    with dag:
        OperateOperator(
            task_id="operate",
            include_dir=str(include),
            ledger_conn_id=ledger_conn_id,
            execution_timeout=SHORT_TIMEOUT,
            doc_md=TASK_DOCS["operate"],
        )
    return dag


def _form(campaigns: tuple[str, ...]) -> dict[str, Param]:
    # without "null" in its type the form calls a field required, whatever its default
    return {
        "action": Param(
            type="string",
            title="Action",
            enum=[str(action) for action in Action],
            values_display={str(action): text for action, text in DESCRIPTIONS.items()},
            description="What to do. Fields that the action has no use for stay empty.",
        ),
        "reason": Param(
            type="string",
            title="Reason",
            minLength=3,
            maxLength=1000,
            pattern=REASON,
            description="Why. Kept for good with your name, so write no e-mail address into it.",
        ),
        "campaign": Param(
            None,
            type=["null", "string"],
            title="Campaign",
            maxLength=250,
            pattern=NO_ADDRESS,
            examples=list(campaigns),
            description="Its id. Empty means all campaigns: for halt, resume, suppress, unsuppress.",
        ),
        "user_ids": Param(
            None,
            type=["null", "array"],
            title="Users",
            items={"type": "string", "pattern": NO_ADDRESS, "maxLength": 250},
            maxItems=MOST_USERS,
            description=(
                "Ids of users in the source, one a line; never an e-mail address (lifecycle suppress"
                " --address takes one). For settle, release, suppress, unsuppress; one at most for a test."
            ),
        ),
        **_range_and_numbers(),
        "recipient": Param(
            TEST_RECIPIENT,
            type=["null", "string"],
            title="Recipient of a test",
            section=TEST,
            pattern=r"^[A-Za-z0-9_.-]{1,200}$",
            description=(
                "The Airflow connection whose login is the address that the test goes to. Not the address:"
                " what stands in this form is kept in Airflow's database."
            ),
        ),
    }


def _range_and_numbers() -> dict[str, Param]:
    return {
        "cohort_from": Param(
            None,
            type=["null", "string"],
            format="date",
            title="First cohort date",
            section=COHORTS,
            description=(
                "For extend, settle and release_cohort (the same day twice): the day on which the first"
                " cohort's users were created."
            ),
        ),
        "cohort_to": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Last cohort date",
            section=COHORTS,
            description="The last such day, included.",
        ),
        "everybody": Param(
            False,
            type=["null", "boolean"],
            title="Everybody in doubt",
            section=COHORTS,
            description="For settle: all mails in doubt of the campaign, instead of users or dates.",
        ),
        "days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=LONGEST_EXTENSION_DAYS,
            title="Days",
            section=EXTENSION,
            description="For extend: so many days more from each deadline, or from now where that is past.",
        ),
        "approved_users": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Approved users",
            section=EXTENSION,
            description=(
                "For extend: how many users it may reach. Leave it empty first: the run fails, changes"
                " nothing, and names the total. Approve it by a second run with that number."
            ),
        ),
        "earlier_extensions": Param(
            0,
            type=["null", "integer"],
            minimum=0,
            title="Earlier extensions",
            section=EXTENSION,
            description=(
                "For extend: how many extensions of these cohorts you know of, so that two people do not"
                " extend them twice. The run that names the total names this number too."
            ),
        ),
    }
