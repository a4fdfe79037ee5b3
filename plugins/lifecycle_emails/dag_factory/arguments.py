"""What the DAGs of this package have in common: retries, time-outs, the pool, and what a DAG file may set.

Nothing here knows a task or a campaign.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators import AlertCallback

POOL = "lifecycle_emails"
"""Airflow pool of the tasks that talk to mail servers; its slots bound how many run at once."""

RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
}
SET_STEP_TIMEOUT = timedelta(hours=2)
SHORT_TIMEOUT = timedelta(minutes=10)


def dag_arguments(
    overrides: dict[str, Any], *, tags: list[str], default_args: dict[str, Any], **arguments: Any
) -> dict[str, Any]:
    """Merge what the factory says with what the DAG file says."""
    overrides = dict(overrides)
    if "schedule" in overrides:
        raise ConfigurationError(
            "The schedule cannot be set in the DAG file: deadlines are computed from the one in the"
            " campaign's file. Write it there."
        )
    return {
        "catchup": False,
        "max_active_runs": 1,
        # a clear takes the newest version of a DAG bundle: a mended template goes out, not the old one again
        "rerun_with_latest_version": True,
        **arguments,
        "tags": [*tags, *overrides.pop("tags", ())],
        "default_args": {**default_args, **overrides.pop("default_args", {})},
        **overrides,
    }


def checked_callbacks(name: str, callbacks: Sequence[AlertCallback]) -> tuple[AlertCallback, ...]:
    """Give the callbacks as a tuple.

    :raises ConfigurationError: it is not a list of notifiers and functions
    """
    if callable(callbacks) or not all(callable(callback) for callback in callbacks):
        raise ConfigurationError(
            f"{name} must be a list of Airflow notifiers or functions of the context, for example "
            f"{name}=[SmtpNotifier(...)]."
        )
    return tuple(callbacks)


def calling_file(frame: FrameType | None) -> tuple[Path, str | None]:
    """Give the path and the docstring of the file that called the factory's function."""
    caller = frame.f_back if frame is not None else None
    if caller is None:
        raise ConfigurationError(
            "The DAG factory cannot tell which file called it; pass include_dir and dag_id."
        )
    return Path(caller.f_code.co_filename).absolute(), caller.f_globals.get("__doc__")


def found_include_dir(dag_file: Path, include_dir: str | Path | None) -> Path:
    """Find the include folder from the DAG file's own place: the working directory is anybody's."""
    return dag_file.parent / include_dir if include_dir is not None else dag_file.parent.parent / "include"
