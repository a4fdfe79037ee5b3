"""The people of the stories, as Airflow's simple auth manager knows them."""

from __future__ import annotations

import json

from reliability.fault_bench.airflow_stack import AirflowStack

VIEWER, USER, APPROVER = "vera", "uma", "olaf"
LOGINS = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"admin:admin,{VIEWER}:viewer,{USER}:user,{APPROVER}:user"
}
"""Settings of an Airflow in which they may log in."""


def password_of(stack: AirflowStack, name: str) -> str:
    """The password that Airflow has made up for somebody."""
    passwords: dict[str, str] = json.loads((stack.folder / "airflow" / "passwords.json").read_text())
    return passwords[name]
