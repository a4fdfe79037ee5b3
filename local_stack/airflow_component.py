"""Start one Airflow component, tuned for a machine with two cores.

``python -m local_stack.airflow_component scheduler --skip-serve-logs`` does what ``airflow scheduler
--skip-serve-logs`` does, with two differences that only concern speed: Python's garbage collector runs less
often (it takes a quarter of the API server's start), and the scheduler imports what tasks will need before it
forks the processes that run them, so that not every task imports it again. The project's own code is left out
of that: a change of it is seen by the next task, as usual.
"""

import contextlib
import gc
import importlib
import sys

PRELOADED = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.comms",
    "airflow.sdk.api.client",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.manager",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.smtp.hooks.smtp",
    "airflow.providers.smtp.notifications.smtp",
    "jinja2.sandbox",
    "pendulum",
    "psycopg",
    "pydantic",
    "yaml",
)


def main() -> None:
    """Run the component named by the arguments until it ends."""
    gc.set_threshold(100_000, 50, 50)
    from airflow.__main__ import main as airflow  # noqa: PLC0415  (after the line above, which it profits from)

    if "scheduler" in sys.argv:
        for module in PRELOADED:
            with contextlib.suppress(ImportError):  # a loss of speed only; the task will say what is missing
                importlib.import_module(module)
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
