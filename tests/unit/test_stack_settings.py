"""The stack's settings come from the environment, and a wrong one is named."""

import pytest

from local_stack.errors import StackError
from local_stack.settings import PROJECT, Settings


def test_settings_have_the_documented_defaults() -> None:
    assert Settings.from_environment({}) == Settings(
        state=PROJECT / ".local",
        postgres_port=15432,
        smtp_port=10025,
        inbox_port=18025,
        airflow_port=18080,
    )


def test_settings_take_a_relative_folder_from_the_project_and_an_absolute_one_as_it_is() -> None:
    assert Settings.from_environment({"STATE_DIR": "elsewhere"}).state == PROJECT / "elsewhere"
    assert str(Settings.from_environment({"STATE_DIR": "/elsewhere"}).state) == "/elsewhere"


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "1.5"])
def test_settings_refuse_what_is_no_port(text: str) -> None:
    with pytest.raises(StackError, match=f"^INBOX_PORT is '{text}'"):
        Settings.from_environment({"INBOX_PORT": text})


def test_settings_refuse_one_port_for_two() -> None:
    with pytest.raises(StackError, match=r"^POSTGRES_PORT and AIRFLOW_PORT are both 15432"):
        Settings.from_environment({"AIRFLOW_PORT": "15432"})
