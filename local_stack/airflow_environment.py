"""Everything Airflow is told in the local stack: by environment variables, and by nothing else.

Secrets are made up once per stack and kept in its folder, readable for its user only.
"""

import base64
import json
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from local_stack.ports import LOOPBACK
from local_stack.settings import Settings

USERNAME = "admin"
METADATA_DATABASE, APP_DATABASE, LEDGER_DATABASE = "airflow", "app", "lifecycle"
DATABASES = (METADATA_DATABASE, APP_DATABASE, LEDGER_DATABASE)
PARALLELISM = 4

DatabaseUrl = Callable[[str], str]


@dataclass(frozen=True)
class AirflowSecrets:
    """What nobody else may know: the login, and the keys that sign and encrypt."""

    password: str
    jwt_secret: str
    secret_key: str
    fernet_key: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the stack's secrets, making them up the first time."""
        file = settings.state / "secrets.json"
        if not file.exists():
            fresh = cls(
                password=secrets.token_urlsafe(9),
                jwt_secret=secrets.token_urlsafe(48),
                secret_key=secrets.token_urlsafe(48),
                fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            )
            write_private(file, json.dumps(asdict(fresh)))
        return cls(**json.loads(file.read_text()))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read: there whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(file)


def base_environment(settings: Settings) -> dict[str, str]:
    """Return this program's environment for another one of the stack, without settings of other Airflows."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "LIFECYCLE_")) and name not in {"PYTHONPATH", "PYTHONHOME"}
    }
    programs = str(Path(sys.executable).parent)
    return {
        **inherited,
        "PATH": f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "PYTHONPATH": str(settings.project),
        "PYTHONUNBUFFERED": "1",
    }


def command_environment(settings: Settings, database_url: DatabaseUrl) -> dict[str, str]:
    """Return what the ``lifecycle`` command needs on this stack, for all that it can do."""
    return {
        "LIFECYCLE_LEDGER_DSN": database_url(LEDGER_DATABASE),
        "LIFECYCLE_SOURCE_DSN": database_url(APP_DATABASE),
        "AIRFLOW_CONN_LIFECYCLE_SMTP": _smtp_connection(settings),
    }


def airflow_environment(settings: Settings, database_url: DatabaseUrl) -> dict[str, str]:
    """Return the environment of every Airflow process, and of an ``airflow`` command typed by hand.

    :param database_url: gives the connection URL of a database of the stack
    """
    known = AirflowSecrets.of(settings)
    home = settings.state / "airflow"
    passwords = home / "passwords.json"
    write_private(passwords, json.dumps({USERNAME: known.password}))
    metadata = database_url(METADATA_DATABASE).replace("postgresql://", "postgresql+psycopg2://", 1)
    return {
        **base_environment(settings),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings.project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        "AIRFLOW__CORE__FERNET_KEY": known.fernet_key,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__BASE_URL": settings.airflow_url,
        "AIRFLOW__API__SECRET_KEY": known.secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": known.jwt_secret,
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",  # two cores may be busy with anything else
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "90",  # until a killed task is tried again
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
        "AIRFLOW_CONN_LIFECYCLE_LEDGER": database_url(LEDGER_DATABASE),
        "AIRFLOW_CONN_LIFECYCLE_SOURCE": database_url(APP_DATABASE),
        "AIRFLOW_CONN_LIFECYCLE_SMTP": _smtp_connection(settings),
        "LIFECYCLE_LEDGER_DSN": database_url(LEDGER_DATABASE),
        "LIFECYCLE_DRY_RUN_REPORTS": (settings.state / "dry-runs").absolute().as_uri(),
    }


def _smtp_connection(settings: Settings) -> str:
    smtp = {
        "conn_type": "smtp",
        "host": LOOPBACK,
        "port": settings.smtp_port,
        "extra": {"disable_tls": True, "disable_ssl": True, "from_email": "lifecycle@example.com"},
    }
    return json.dumps(smtp)
