"""Stages for rows: one process server for each tree and one network process, kept for the rows that follow.

Everything kept ends with the program that keeps it: its children end at the end of their input.
"""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.postgres import PostgresServer
from reliability.fault_bench.fault import Setting
from reliability.fault_bench.processes import NetworkProcess, ProcessServer
from reliability.fault_bench.stage import Stage, prepare_template

_servers: dict[Path, ProcessServer] = {}
_networks: list[NetworkProcess] = []
_templates: dict[tuple[Path, Path], str] = {}
_numbers = itertools.count(1)


@contextmanager
def staged(setting: Setting, postgres: PostgresServer | None = None) -> Iterator[Stage]:
    """A stage with an empty ledger of the setting's tree, in the setting's server or in another one."""
    where = postgres or setting.postgres
    number = f"{os.getpid()}_{next(_numbers)}"
    folder = setting.folder / f"stage_{number}"
    folder.mkdir()
    database = f"stage_{number}"
    where.create_database(database, template=_template(setting, where))
    stage = Stage(folder, where, _server(setting), _network(setting), database)
    try:
        yield stage
    finally:
        stage.close()
        if where.is_running():
            where.drop_database(database)


def forget(tree: Path) -> None:
    """End the process server of a tree that is not needed any more."""
    if server := _servers.pop(tree, None):
        server.close()


def _server(setting: Setting) -> ProcessServer:
    if setting.tree not in _servers:
        _servers[setting.tree] = ProcessServer(setting.tree, _log(setting.tree.parent, "process_server"))
    return _servers[setting.tree]


def _network(setting: Setting) -> NetworkProcess:
    if not _networks:
        _networks.append(NetworkProcess(_log(setting.tree.parent, "network")))
        atexit.register(_networks[0].close)
    return _networks[0]


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name}_{os.getpid()}_{next(_numbers)}.log"


def _template(setting: Setting, postgres: PostgresServer) -> str:
    key = setting.tree, postgres.data  # not its port, which another server may have had
    if key not in _templates:
        name = f"template_{os.getpid()}_{next(_numbers)}"
        prepare_template(postgres, _server(setting), name, setting.folder)
        _templates[key] = name
    return _templates[key]
