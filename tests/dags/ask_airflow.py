"""Asks an Airflow that is set up by environment variables alone; test_compose.py runs it as a process.

Reads a question as JSON from standard input; the answer is the last line it writes.
"""

import contextlib
import io
import json
import sys
from importlib import import_module
from typing import Any

from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf


def refused_commands(commands: list[list[str]]) -> list[str]:
    """Give the command lines that Airflow's own parser does not take, with what it says."""
    refused = []
    for command in commands:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                get_parser().parse_args(command[1:])
        except SystemExit:
            refused.append(f"{' '.join(command)}: {said.getvalue()}")
    return refused


def unknown_settings(variables: list[str]) -> list[str]:
    """Give the variables that name no option of Airflow or of an installed provider."""
    known = conf.configuration_description
    unknown = []
    for variable in variables:
        _, section, option = variable.lower().split("__", 2)
        if option not in known.get(section, {}).get("options", {}):
            unknown.append(variable)
    return unknown


def celery_apps(paths: list[str]) -> list[str]:
    """Give the kinds of the objects that `celery --app` would use."""
    kinds = []
    for path in paths:
        module, _, name = path.rpartition(".")
        kinds.append(type(getattr(import_module(module), name)).__name__)
    return kinds


def main() -> None:
    """Answer the question."""
    question: dict[str, Any] = json.load(sys.stdin)
    answer = {
        "refused_commands": refused_commands(question["commands"]),
        "unknown_settings": unknown_settings(question["settings"]),
        "celery_apps": celery_apps(question["celery_app"]),
        "executor": conf.get("core", "executor"),
        "broker": conf.get("celery", "broker_url"),
        "visibility_timeout": conf.getint("celery_broker_transport_options", "visibility_timeout"),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
