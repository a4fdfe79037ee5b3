"""The services of docker-compose.yaml, as they can be run without Docker: command, environment, replicas.

Compose puts values into variables and gives every service a host name; here all of them live on one machine,
so host names, published ports and the image's home folder are replaced word by word. It knows nothing of what
the services are for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
COMPOSE_FILE = PROJECT / "docker-compose.yaml"
IMAGE_HOME = "/opt/airflow"
"""Where Dockerfile puts DAGs, plugins and campaigns: AIRFLOW_HOME of every Airflow service."""

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[?-][^}]*)?\}")


@dataclass(frozen=True)
class Service:
    """What a service runs, and how often."""

    command: tuple[str, ...]
    environment: dict[str, str]
    replicas: int


def read_compose(file: Path = COMPOSE_FILE) -> dict[str, Any]:
    """Read the file, its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


def filled_in(value: str, answers: Mapping[str, str]) -> str:
    """Do as Compose does: put variables in, and make two dollar signs one. KeyError: a variable has none."""
    return VARIABLE.sub(lambda found: answers[found.group(1)], value).replace("$$", "$")


def local_service(
    compose: Mapping[str, Any], name: str, answers: Mapping[str, str], places: Mapping[str, str]
) -> Service:
    """Give a service as it runs on this machine.

    :param answers: the variables that .env would set
    :param places: what stands for the network of Compose: words of the file, and what to write instead
    """
    described = compose["services"][name]

    def local(value: str) -> str:
        for word, instead in places.items():
            value = value.replace(word, instead)
        return filled_in(value, answers)

    return Service(
        command=tuple(map(local, described["command"])),
        environment={key: local(value) for key, value in described["environment"].items()},
        replicas=described.get("deploy", {}).get("replicas", 1),
    )
