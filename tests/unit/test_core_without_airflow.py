"""The layers, held by their imports: the core runs where Airflow is not installed, and knows only what it must."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent.parent.parent / "plugins"
PACKAGE = PLUGINS / "lifecycle_emails"
GLUE = re.compile(r"lifecycle_emails(_plugin|\.operators|\.dag_\w+|\.airflow_\w+)(\..*)?")

DATABASE = ("psycopg", "lifecycle_emails.ledger", "lifecycle_emails.audience")
MAIL_SERVER = ("smtplib", "socket", "ssl", "lifecycle_emails.delivery")
# What a module, and every module below it, must not import; further rules may match further up.
MUST_NOT_IMPORT = {
    "lifecycle_emails.address": DATABASE + MAIL_SERVER,
    "lifecycle_emails.audience": ("lifecycle_emails.ledger", "lifecycle_emails.message", *MAIL_SERVER),
    "lifecycle_emails.audience_text": DATABASE[:2] + MAIL_SERVER,
    "lifecycle_emails.campaign": DATABASE + MAIL_SERVER,
    "lifecycle_emails.campaign_schema": DATABASE + MAIL_SERVER,
    "lifecycle_emails.cohort": DATABASE + MAIL_SERVER,
    "lifecycle_emails.configuration_file": DATABASE + MAIL_SERVER,
    "lifecycle_emails.daily_limit": DATABASE + MAIL_SERVER,
    "lifecycle_emails.delivery.reply": (*DATABASE, "smtplib", "socket"),
    "lifecycle_emails.delivery.smtp_session": (*DATABASE, "lifecycle_emails.message"),
    "lifecycle_emails.delivery.wire": (*DATABASE, "smtplib", "socket"),
    "lifecycle_emails.errors": DATABASE + MAIL_SERVER,
    "lifecycle_emails.frequency_cap": DATABASE + MAIL_SERVER,
    "lifecycle_emails.ledger": (*MAIL_SERVER, "jinja2", "lifecycle_emails.message"),
    "lifecycle_emails.mail_template": DATABASE + MAIL_SERVER,
    "lifecycle_emails.message": DATABASE + MAIL_SERVER,
    "lifecycle_emails.mime": DATABASE + MAIL_SERVER,
    "lifecycle_emails.source_error": ("lifecycle_emails.ledger", *MAIL_SERVER),
    "lifecycle_emails.throttle": DATABASE + MAIL_SERVER,
    "lifecycle_emails.source_value": ("lifecycle_emails.audience", "lifecycle_emails.ledger", *MAIL_SERVER),
}

# The two doors from the core to the glue, opened only when somebody goes through them.
MAY_IMPORT = {
    "lifecycle_emails": {
        "lifecycle_emails.dag_factory",
        "lifecycle_emails.dag_factory.lifecycle_dag",
        "lifecycle_emails.dag_factory.lifecycle_maintenance_dag",
        "lifecycle_emails.dag_factory.lifecycle_operations_dag",
    },
    "lifecycle_emails.commands.send_test": {
        "lifecycle_emails.operators.connections",
        "lifecycle_emails.operators.connections.smtp_settings",
    },
    "lifecycle_emails.commands.source": {
        "lifecycle_emails.operators.connections",
        "lifecycle_emails.operators.connections.source_connector",
    },
    "lifecycle_emails.cli": {
        "lifecycle_emails.operators.connections",
        "lifecycle_emails.operators.connections.ledger_connector",
    },
}


def module_names() -> list[str]:
    names = [".".join(path.relative_to(PLUGINS).with_suffix("").parts) for path in PLUGINS.rglob("*.py")]
    return sorted(name.removesuffix(".__init__") for name in names)


CORE = [name for name in module_names() if not GLUE.fullmatch(name)]
IN_GLUE = [name for name in module_names() if GLUE.fullmatch(name)]


def tree(name: str) -> ast.Module:
    path = PLUGINS.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """Every module that the module names in an import, wherever in it."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import, which breaks where plugins are executed"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_layers_are_all_found() -> None:
    assert {"lifecycle_emails.message", "lifecycle_emails.ledger.gate", "lifecycle_emails.cli"} <= set(CORE)
    assert {"lifecycle_emails.dag_factory", "lifecycle_emails.operators.alert"} <= set(IN_GLUE)
    assert [name for name in MUST_NOT_IMPORT if name not in CORE] == []


def test_core_imports_without_airflow_installed() -> None:
    program = """
import importlib, importlib.abc, sys

class NoAirflow(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in ("airflow", "airflow_shared"):
            raise ModuleNotFoundError(f"{fullname} is not installed here", name=fullname)

sys.meta_path.insert(0, NoAirflow())
for name in sys.argv[1:]:
    importlib.import_module(name)
try:
    import airflow
except ModuleNotFoundError:
    print("imported", len(sys.argv) - 1, "modules without airflow")
"""
    names = [name for name in CORE if not name.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *names],
        env={"PYTHONPATH": str(PLUGINS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"imported {len(names)} modules without airflow\n"


@pytest.mark.parametrize("name", CORE)
def test_core_never_imports_airflow_or_the_glue(name: str) -> None:
    found = {module for module in imports(name) if is_within(module, "airflow") or GLUE.fullmatch(module)}
    assert found == MAY_IMPORT.get(name, set())


@pytest.mark.parametrize("name", CORE)
def test_core_modules_know_only_what_they_must(name: str) -> None:
    forbidden = {
        module
        for package in MUST_NOT_IMPORT
        if is_within(name, package)
        for module in MUST_NOT_IMPORT[package]
    }
    assert [
        module for module in imports(name) if any(is_within(module, package) for package in forbidden)
    ] == []


@pytest.mark.parametrize("name", IN_GLUE)
def test_glue_holds_no_smtp(name: str) -> None:
    assert [
        module for module in imports(name) if is_within(module, "smtplib") or is_within(module, "email")
    ] == []


@pytest.mark.parametrize("name", IN_GLUE)
def test_glue_holds_no_sql(name: str) -> None:
    sql = re.compile(
        r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|BEGIN|COMMIT|CREATE|ALTER|DROP|SET)\s+\w", re.ASCII
    )
    texts = [
        node.value
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if sql.match(text)] == []
    calls = [
        node.func.attr
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert {"executemany", "fetchone", "fetchall", "cursor"}.isdisjoint(calls)


def test_core_asks_no_clock_for_the_time_of_a_decision() -> None:
    """Time is the database's or an argument; a Date header and a duration may use the process's clock."""
    pure = [name for name in MUST_NOT_IMPORT if not is_within(name, "lifecycle_emails.delivery")]
    clock = re.compile(r"\b(datetime\.(now|today|utcnow)|date\.today|time\.time|pendulum\.(now|today))\b")
    found = [name for name in CORE if name in pure and clock.search(ast.unparse(tree(name)))]
    assert found == []
