"""A private Airflow for the tests of the DAGs: its home is a temporary folder, its metadata a SQLite file.

Airflow reads its settings when it is first imported, so they are set here, before any test of this folder is.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local_stack.catcher import Catcher, running_catcher

ROOT = Path(__file__).parents[2]
_HOME = tempfile.TemporaryDirectory(prefix="lifecycle-airflow-")

os.environ |= {
    "AIRFLOW_HOME": _HOME.name,
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME.name}/airflow.db",
}

from airflow.dag_processing.dagbag import DagBag  # noqa: E402  (after its settings)
from airflow.models.dagrun import DagRun  # noqa: E402

from tests.address_search import addresses_in_files, addresses_in_sqlite  # noqa: E402
from tests.dags.daily_dag import DailyDag  # noqa: E402
from tests.factories import IncludeFolder  # noqa: E402


@pytest.fixture(scope="session")
def airflow_metadata() -> Iterator[None]:
    """Create Airflow's metadata database; at the end no address may stand in it, nor in Airflow's logs."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    yield
    home = Path(_HOME.name)
    assert list(addresses_in_sqlite(home / "airflow.db")) == []
    assert list(addresses_in_files(home / "logs")) == []


@pytest.fixture(scope="session")
def example_dags() -> DagBag:
    """Parse the DAG files that the repository ships."""
    return DagBag(ROOT / "dags")


DOCSTRING = '"""A DAG for Airflow."""'


class Project:
    """A team's project: an include folder with the campaign ``welcome``, and DAG files beside it."""

    def __init__(self, root: Path) -> None:
        self.include = IncludeFolder(root)
        self.dags = root / "dags"
        self.dags.mkdir()

    def write_dag(self, name: str = "welcome", *, call: str | None = None, head: str = DOCSTRING) -> Path:
        """Write a DAG file; ``call`` is the factory's call, by default one for the campaign of its name."""
        path = self.dags / f"{name}.py"
        call = call or f'lifecycle_dag("{name}", on_limit_exceeded=[print])'
        path.write_text(
            f"{head}\n\nfrom lifecycle_emails import lifecycle_dag, lifecycle_maintenance_dag\n\ndag ="
            f" {call}\n",
            encoding="utf-8",
        )
        return path

    def parse(self) -> DagBag:
        """Parse the DAG files as Airflow's DAG processor does."""
        return DagBag(self.dags)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Give a project without mistakes and without DAG files."""
    return Project(tmp_path)


RunDag = Callable[..., DagRun]


@pytest.fixture
def run_dag(project: Project, airflow_metadata: None, monkeypatch: pytest.MonkeyPatch) -> RunDag:
    """Give a function that runs a DAG of the project to its end, in this process; arguments are `DAG.test`'s."""
    bundle = {
        "name": "project",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(project.dags)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))

    def run(dag_id: str, **arguments: Any) -> DagRun:
        bag = project.parse()
        assert bag.import_errors == {}
        with warnings.catch_warnings():
            # DAG.test starts Airflow's API in this process, and with it comes what Airflow and what it stands
            # on have not renewed yet; our own code must still not warn
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module="lifecycle_emails")
            return bag.dags[dag_id].test(**arguments)

    return run


def states_of(run: DagRun) -> dict[str, str]:
    """Tell how each task of a run ended; mapped ones as ``send_batch 0``."""
    return {
        task.task_id if task.map_index < 0 else f"{task.task_id} {task.map_index}": str(task.state)
        for task in run.get_task_instances()
    }


MakeConnection = Callable[[str, str], None]


@pytest.fixture
def make_connection(monkeypatch: pytest.MonkeyPatch) -> MakeConnection:
    """Give a function that adds an Airflow connection: its id, and its URI or JSON."""

    def make(conn_id: str, value: str) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)

    return make


def smtp_connection(port: int) -> str:
    """Make the Airflow connection of a mail server on this machine."""
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "alerts@example.com"}
    return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra})


@pytest.fixture
def catcher(tmp_path: Path, make_connection: MakeConnection) -> Iterator[Catcher]:
    """Give a mail server that keeps what it accepts; the connection lifecycle_smtp leads to it."""
    with running_catcher(tmp_path / "mails.sqlite") as running:
        make_connection("lifecycle_smtp", smtp_connection(running.port))
        yield running


@pytest.fixture
def ledger(ledger_database: str, make_connection: MakeConnection) -> Iterator[psycopg.Connection[Any]]:
    """Give the ledger to which the connection lifecycle_ledger leads."""
    make_connection("lifecycle_ledger", ledger_database)
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def source(source_database: str, make_connection: MakeConnection) -> Iterator[psycopg.Connection[Any]]:
    """Give the database of users to which the connection lifecycle_source leads."""
    make_connection("lifecycle_source", source_database)
    with psycopg.connect(source_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def daily(project: Project, run_dag: RunDag, ledger: Any, source: Any, catcher: Catcher) -> DailyDag:
    """Give the example campaign's DAG in a project of its own."""
    return DailyDag(project, run_dag, ledger, source, catcher)
