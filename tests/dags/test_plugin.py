import subprocess
import sys

from tests.dags.conftest import ROOT

LOAD_PLUGINS = """
import sys
from airflow import plugins_manager

known = set(sys.modules)
plugins, errors = plugins_manager._get_plugins()
assert errors == {}, errors
print(sorted(plugin.name for plugin in plugins if plugin.name == "lifecycle_emails"))
print(sorted(name for name in set(sys.modules) - known if name.startswith(("lifecycle", "campaign", "message"))))
"""


def test_airflow_registers_the_plugin_and_executes_none_of_the_package() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOAD_PLUGINS], check=False, capture_output=True, text=True)

    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines()[-2:] == ["['lifecycle_emails']", "['lifecycle_emails_plugin']"]


def test_package_is_on_the_plugins_ignore_list() -> None:
    assert "lifecycle_emails/" in (ROOT / "plugins/.airflowignore").read_text().splitlines()
