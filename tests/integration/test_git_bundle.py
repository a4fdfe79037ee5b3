"""A campaign in a git DAG bundle on a real Airflow: mend the template, commit, clear, and the new text goes out."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.postgres import PostgresServer
from local_stack.settings import PROJECT
from reliability.fault_bench.airflow_campaign import AirflowCampaign, airflow_campaign
from reliability.fault_bench.airflow_stack import AirflowStack, until
from reliability.fault_bench.fault import Setting

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("git"), reason="git is not installed"),
]

SECONDS = 300
GIT_BUNDLE = "airflow.providers.git.bundles.git.GitDagBundle"
DAG_FILE = '''\
"""An Airflow DAG whose package is of the same commit as its texts."""

import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins"))

from lifecycle_emails import lifecycle_dag

dag = lifecycle_dag(
    "{campaign}",
    ledger_conn_id="{campaign}_ledger",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    on_limit_exceeded=[print],
    default_args={{"retries": 0}},
)
'''


class Repository:
    """A git repository with ``dags/``, ``include/`` and ``plugins/``, as a team has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plugins = path / "plugins"
        shutil.copytree(PROJECT / "plugins", self.plugins, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dags", "include"):
            (path / name).mkdir()
        self._git("init", "--quiet", "--initial-branch=main")
        self.commit("The package")

    def commit(self, subject: str) -> str:
        """Commit the three folders as they are, and return the commit's hash."""
        self._git("add", "--all", "dags", "include", "plugins")
        self._git("commit", "--quiet", "--no-gpg-sign", "--message", subject)
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str) -> str:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def campaign(repository: Repository, postgres_server: PostgresServer) -> Iterator[AirflowCampaign]:
    """Give a campaign that has no DAG file yet, on an Airflow whose only bundle is the repository."""
    bundle = {
        "name": "team",
        "classpath": GIT_BUNDLE,
        "kwargs": {
            "repo_url": str(repository.path), "tracking_ref": "main", "subdir": "dags", "refresh_interval": 1,
        },
    }  # fmt: skip
    changes = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(repository.path / "bundles"),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
    }
    stack = AirflowStack(postgres_server, "git_bundle", changes)
    setting = Setting(repository.path, range(0), postgres_server, repository.plugins)
    try:
        with airflow_campaign(stack, setting) as campaign:
            yield campaign
    finally:
        stack.stop()


def test_mended_template_and_code_go_out_from_a_git_bundle_when_the_run_is_cleared(
    repository: Repository, campaign: AirflowCampaign
) -> None:
    api, subject = campaign.api, f"templates/{campaign.id}/subject.txt.j2"
    one, two = campaign.add_users(2)
    campaign.write(subject, "Old{% if full_name == 'Ada 2' %} {{ 1 // 0 }}{% endif %}")
    (repository.path / f"dags/{campaign.id}.py").write_text(DAG_FILE.format(campaign=campaign.id))
    old_code = code_of(repository.plugins)
    repository.commit("A campaign")
    run = api.wait_for_run(campaign.scheduled(), SECONDS)
    assert campaign.states() == {one: "sent", two: "held/render_failed"}

    campaign.write(subject, "New")
    with (repository.plugins / "lifecycle_emails/errors.py").open("a") as file:
        file.write("# mended\n")
    mended = repository.commit("Mend the subject, and the package")
    until(lambda: api.bundle_version(campaign.id) == mended, SECONDS, f"Airflow has not read {mended}")
    api.clear(run)
    assert api.wait_for_run(run, SECONDS).state == "success"

    assert subjects(campaign) == [(one, "Old"), (two, "New")]
    assert codes(campaign) == {one: old_code, two: code_of(repository.plugins)}


def subjects(campaign: AirflowCampaign) -> list[tuple[str, str]]:
    """User and subject of every accepted mail, in order."""
    return [
        (mail.reference[1], email.message_from_bytes(mail.content)["Subject"])
        for mail in campaign.server.accepted
        if mail.reference
    ]


def codes(campaign: AirflowCampaign) -> dict[str, str]:
    """Which code let each user's mail pass the gate, by the ledger."""
    with campaign.ledger() as ledger:
        return dict(ledger.execute("SELECT user_id, code_version FROM lifecycle.sends").fetchall())


def code_of(plugins: Path) -> str:
    """The version of the package in a folder, by its own word."""
    command = [
        sys.executable,
        "-c",
        "from lifecycle_emails.code_version import code_version; print(code_version())",
    ]
    environment = {**os.environ, "PYTHONPATH": str(plugins)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
