"""Parse the DAG files of a folder as Airflow's DAG processor does; started by `bench.planning`.

Prints one JSON object: seconds of importing Airflow, then of parsing every file, by the clock and of CPU, and
how many connections Python's sockets tried meanwhile: a parsed file must need no network. Those of libpq
are not among them; the database that is configured does not exist, so a file that needs it cannot be parsed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Parse, and print what it took."""
    folder = Path(sys.argv[1])
    os.environ |= {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    }
    started = time.perf_counter()
    import airflow.sdk  # noqa: F401, PLC0415
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415

    DagBag(folder / "none", collect_dags=False)
    imported = time.perf_counter()
    cpu = time.process_time()
    connections = []
    sys.addaudithook(
        lambda event, arguments: connections.append(arguments) if event == "socket.connect" else None
    )
    bag = DagBag(collect_dags=False)
    for file in sorted(folder.glob("*.py")):
        bag.process_file(str(file))
    if bag.import_errors:
        raise RuntimeError(f"a DAG file cannot be parsed: {next(iter(bag.import_errors.values()))}")
    figures = {
        "dags": len(bag.dags),
        "airflow_import_seconds": imported - started,
        "parse_seconds": time.perf_counter() - imported,
        "parse_cpu_seconds": time.process_time() - cpu,
        "connections": len(connections),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
