"""docker-compose.yaml cannot drift: its commands and settings are held against the installed Airflow.

No Docker engine is needed. What an image of somebody else holds cannot be asked here; `FOREIGN_PROGRAMS` says
what is relied on.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lifecycle_emails import cli
from lifecycle_emails.campaign import Campaign
from lifecycle_emails.dag_factory.arguments import POOL
from lifecycle_emails.ledger.witness import WITNESS_VARIABLE
from local_stack.postgres import PostgresServer
from reliability.compose import VARIABLE, filled_in, read_compose

ROOT = Path(__file__).parents[2]
EXAMPLE_DAG = ROOT / "dags" / "day4_follow_up.py"
SERVICES = {
    "api-server",
    "dag-processor",
    "mailpit",
    "migrate",
    "postgres",
    "redis",
    "scheduler",
    "triggerer",
    "worker",
}
FOREIGN_PROGRAMS = {
    "mailpit": {"/mailpit"},
    "postgres": {"pg_isready"},
    "redis": {"redis-cli", "redis-server", "sh", "grep"},
}
ANSWERS = {
    "AIRFLOW_ADMIN_PASSWORD": "an-admin-password",
    "AIRFLOW_FERNET_KEY": "0" * 43 + "=",
    "AIRFLOW_JWT_SECRET": "1" * 64,
    "AIRFLOW_SECRET_KEY": "2" * 64,
    "LIFECYCLE_SOURCE": "postgresql://reader:a-password@db.example.com:5432/app",
    "POSTGRES_PASSWORD": "3" * 48,
    "REDIS_PASSWORD": "4" * 48,
}
ASK_AIRFLOW = Path(__file__).with_name("ask_airflow.py")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the file, its anchors resolved."""
    return read_compose()


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """Give what .env.example sets, empty values too."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def command_lines(service: dict[str, Any]) -> list[list[str]]:
    """Give every program that a service starts or its health check runs, with its arguments."""
    lines: list[list[str]] = []
    command = service.get("command", [])
    if command[:1] == ["bash"] or command[:1] == ["sh"]:
        lines += _script_lines(command[-1])
    elif command:
        lines.append(command)
    kind, *check = service.get("healthcheck", {}).get("test", ["NONE"])
    if kind == "CMD":
        lines.append(check)
    elif kind == "CMD-SHELL":
        lines += _script_lines(check[0])
    return lines


def _script_lines(script: str) -> list[list[str]]:
    joined = script.replace("\\\n", " ").replace("$$", "$").replace(" | ", "\n")
    words = [shlex.split(line) for line in joined.splitlines() if line.strip()]
    return [line[1:] if line[0] == "exec" else line for line in words if line[0] != "umask"]


def lines_of(compose: dict[str, Any], program: str) -> list[list[str]]:
    return [
        line
        for service in compose["services"].values()
        for line in command_lines(service)
        if line[0] == program
    ]


@pytest.fixture(scope="module")
def airflows_word(
    compose: dict[str, Any], example: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Ask an Airflow that is set up by the file's environment alone what it makes of the file."""
    answers = example | ANSWERS
    environment = {
        name: filled_in(value, answers)
        for name, value in compose["services"]["scheduler"]["environment"].items()
    }
    home = str(tmp_path_factory.mktemp("airflow"))
    question = {
        "commands": lines_of(compose, "airflow"),
        "settings": [name for name in environment if name.startswith("AIRFLOW__")],
        "celery_app": [line[line.index("--app") + 1] for line in lines_of(compose, "celery")],
    }
    process = subprocess.run(
        [sys.executable, str(ASK_AIRFLOW)],
        input=json.dumps(question),
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": home, "PYTHONPATH": str(ROOT / "plugins")}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def test_compose_file_is_valid_against_the_compose_schema() -> None:
    command = [
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(ROOT / "docker-compose.yaml"),
    ]
    program = str(Path(sys.executable).with_name(command[0]))
    result = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_compose_runs_the_whole_system_with_two_workers(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == SERVICES
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2
    assert compose["services"]["worker"]["environment"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


def test_every_airflow_command_is_one_of_the_installed_airflow(
    compose: dict[str, Any], airflows_word: dict[str, Any]
) -> None:
    assert len(lines_of(compose, "airflow")) >= 10
    assert airflows_word["refused_commands"] == []


def test_every_airflow_setting_exists_in_the_installed_airflow(airflows_word: dict[str, Any]) -> None:
    assert airflows_word["unknown_settings"] == []


def test_every_airflow_setting_arrives(airflows_word: dict[str, Any]) -> None:
    assert airflows_word["executor"] == "CeleryExecutor"
    assert airflows_word["broker"] == f"redis://:{ANSWERS['REDIS_PASSWORD']}@redis:6379/0"
    assert airflows_word["visibility_timeout"] == 86400


def test_celery_app_of_the_workers_health_check_is_airflows(airflows_word: dict[str, Any]) -> None:
    assert airflows_word["celery_apps"] == ["Celery"]


def test_all_airflow_services_share_image_and_settings(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if "build" in service]
    assert len(ours) == len(SERVICES) - len(FOREIGN_PROGRAMS)
    shared = compose["services"]["scheduler"]["environment"]
    for service in ours:
        assert service["image"] == compose["services"]["scheduler"]["image"]
        assert shared.items() <= service["environment"].items()


def test_migration_job_runs_before_everything_that_needs_it(compose: dict[str, Any]) -> None:
    for name in SERVICES - set(FOREIGN_PROGRAMS) - {"migrate"}:
        dependencies = compose["services"][name]["depends_on"]
        assert dependencies == {"migrate": {"condition": "service_completed_successfully"}}, name
    lines = command_lines(compose["services"]["migrate"])
    assert [line[:3] for line in lines] == [
        ["airflow", "db", "migrate"],
        ["airflow", "pools", "set"],
        ["python", "-m", "lifecycle_emails"],
    ]
    cli._parser().parse_args(lines[-1][3:])


def test_names_of_pool_and_connections_are_those_of_the_code(compose: dict[str, Any]) -> None:
    [pool] = [line for line in lines_of(compose, "airflow") if line[1] == "pools"]
    assert pool[3] == POOL
    fields = Campaign.model_fields
    expected = {cli.CONNECTION_ID, fields["source_conn_id"].default, fields["smtp_conn_id"].default}
    given = {
        name.removeprefix("AIRFLOW_CONN_").lower()
        for name in compose["services"]["scheduler"]["environment"]
        if name.startswith("AIRFLOW_CONN_")
    }
    assert given == expected


def owned_by_airflow() -> list[str]:
    """Return the folders of the image that Airflow may write to, and volumes that are made of them."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [folders] = re.findall(r"install --directory --owner airflow (.+)$", dockerfile, re.MULTILINE)
    return folders.split()


def test_witness_is_kept_outside_the_ledgers_server_where_the_image_lets_airflow_write(
    compose: dict[str, Any],
) -> None:
    witness = Path(compose["services"]["worker"]["environment"][WITNESS_VARIABLE])
    volume = f"witness:{witness.parent}"
    assert volume in compose["services"]["worker"]["volumes"]
    assert all("witness" not in mounted for mounted in compose["services"]["postgres"]["volumes"])
    assert str(witness.parent) in owned_by_airflow()


def test_reports_of_dry_runs_outlive_their_worker(compose: dict[str, Any]) -> None:
    [variable] = re.findall(
        r'dry_run_reports=os\.environ\.get\("(\w+)"\)', EXAMPLE_DAG.read_text(encoding="utf-8")
    )
    folder = compose["services"]["worker"]["environment"][variable].removeprefix("file://")
    assert f"dry-runs:{folder}" in compose["services"]["worker"]["volumes"]
    assert "dry-runs" in compose["volumes"]
    assert folder in owned_by_airflow()


def test_ledger_is_a_database_that_the_first_start_creates(compose: dict[str, Any]) -> None:
    ledger = compose["services"]["scheduler"]["environment"]["AIRFLOW_CONN_LIFECYCLE_LEDGER"]
    database = ledger.rpartition("/")[2]
    assert compose["configs"]["ledger_database"]["content"] == f"CREATE DATABASE {database};"


def test_example_smtp_connection_is_mailpits(
    example: dict[str, str], compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lifecycle_emails.operators.connections import smtp_settings  # noqa: PLC0415  (imports Airflow)

    monkeypatch.setenv("AIRFLOW_CONN_LIFECYCLE_SMTP", example["LIFECYCLE_SMTP"])
    settings = smtp_settings("lifecycle_smtp")
    assert settings.host in compose["services"]
    assert (settings.port, settings.security, settings.username) == (1025, "none", None)


def test_every_service_that_stays_has_a_health_check_whose_program_exists(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name == "migrate":
            continue
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        for line in command_lines(service):
            if name in FOREIGN_PROGRAMS:
                assert line[0] in FOREIGN_PROGRAMS[name], line
            else:
                assert Path(sys.executable).with_name(line[0]).exists(), line


def test_python_in_commands_compiles_and_scripts_are_bash(compose: dict[str, Any]) -> None:
    for line in lines_of(compose, "python"):
        if line[1] == "-c":
            compile(line[2], "docker-compose.yaml", "exec")
    for service in compose["services"].values():
        if service.get("command", [])[:1] == ["bash"]:
            script = service["command"][-1].replace("$$", "$")
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_api_servers_password_file_is_what_airflow_reads(compose: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "passwords.json"
    script = compose["services"]["api-server"]["command"][-1].replace("$$", "$")
    written, _, rest = script.partition("exec airflow")
    assert rest
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW_ADMIN_PASSWORD": 'with "quotes" and $',
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
    }
    subprocess.run(["bash", "-ceu", written], env=environment, check=True)
    assert json.loads(file.read_text()) == {"admin": 'with "quotes" and $'}
    assert file.stat().st_mode & 0o077 == 0


def test_images_are_named_by_version(compose: dict[str, Any], postgres_server: PostgresServer) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    for image in images.values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", image), image
    with postgres_server.connect("postgres") as connection:
        tested = connection.execute("SHOW server_version").fetchone()
    assert tested is not None
    assert images["postgres"] == f"postgres:{tested[0].split()[0]}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert images["scheduler"] == f"{project['name']}:{project['version']}"


def test_image_is_built_from_the_locked_versions() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM python:(3\.\d+)\.\d+-slim-\w+", dockerfile, re.MULTILINE)
    [locked_for] = re.findall(r"--python-version ([\d.]+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert bases == [locked_for] * 2
    assert "--require-hashes" in dockerfile
    [uv] = re.findall(r"uv==([\d.]+)", dockerfile)
    assert f"uv=={uv}\n" in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE))
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(let_through)
    for name in let_through:
        assert (ROOT / name).exists(), name


def test_required_variables_are_those_of_the_example(example: dict[str, str]) -> None:
    text = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    variables = {found.group(1): found.group(2) for found in VARIABLE.finditer(text)}
    assert set(variables) == set(example)
    for name, rule in variables.items():
        if not name.endswith("_PORT"):
            assert rule is not None, name
            assert rule.startswith(":?set it in .env"), name


def test_nothing_has_a_default_secret(compose: dict[str, Any], example: dict[str, str]) -> None:
    given = {name: value for name, value in example.items() if value}
    assert set(given) == {"AIRFLOW_PORT", "INBOX_PORT", "LIFECYCLE_SMTP"}
    assert "@" not in given["LIFECYCLE_SMTP"]
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|SECRET|FERNET|_AUTH$|_CONN_", name):
                assert "${" in value, name
            assert not re.search(r"://\w*:(?!\$\{)[^/@]+@", value), name


def test_only_loopback_ports_are_published(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
