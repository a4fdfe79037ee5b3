"""Where the local stack keeps its state and which ports it uses, as the environment says."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK

PROJECT = Path(__file__).resolve().parent.parent
PORTS = {"POSTGRES_PORT": 15432, "SMTP_PORT": 10025, "INBOX_PORT": 18025, "AIRFLOW_PORT": 18080}


@dataclass(frozen=True)
class Settings:
    """One stack. Two of them run side by side when they share neither folder nor port."""

    state: Path
    postgres_port: int = PORTS["POSTGRES_PORT"]
    smtp_port: int = PORTS["SMTP_PORT"]
    inbox_port: int = PORTS["INBOX_PORT"]
    airflow_port: int = PORTS["AIRFLOW_PORT"]
    project: Path = PROJECT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read STATE_DIR and the ports. StackError names the variable that is wrong.

        A relative STATE_DIR is taken from the project's folder.
        """
        ports: dict[str, int] = {}
        for name, default in PORTS.items():
            text = environment.get(name) or str(default)
            if not text.isdecimal() or not 1 <= int(text) <= 65535:
                raise StackError(f"{name} is {text!r}; it has to be a port from 1 to 65535.")
            other = next((earlier for earlier, port in ports.items() if port == int(text)), None)
            if other:
                raise StackError(f"{other} and {name} are both {text}; give each its own port.")
            ports[name] = int(text)
        state = PROJECT / (environment.get("STATE_DIR") or ".local")
        return cls(
            state=state.resolve(),
            postgres_port=ports["POSTGRES_PORT"],
            smtp_port=ports["SMTP_PORT"],
            inbox_port=ports["INBOX_PORT"],
            airflow_port=ports["AIRFLOW_PORT"],
        )

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's page and API."""
        return f"http://{LOOPBACK}:{self.airflow_port}"

    @property
    def inbox_url(self) -> str:
        """Address of the inbox page."""
        return f"http://{LOOPBACK}:{self.inbox_port}"

    @property
    def mails(self) -> Path:
        """The file of the caught mails."""
        return self.state / "mails.sqlite"

    @property
    def logs(self) -> Path:
        """Where each process of the stack writes its log."""
        return self.state / "logs"
