"""Lifecycle e-mail for Apache Airflow that mails nobody twice.

A DAG file needs one of three names, and this module gives them, on demand only: whoever imports the core
must not import Airflow with it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle_emails.dag_factory import (
        lifecycle_dag,
        lifecycle_maintenance_dag,
        lifecycle_operations_dag,
    )

__all__ = ["lifecycle_dag", "lifecycle_maintenance_dag", "lifecycle_operations_dag"]


def __getattr__(name: str) -> Any:
    """Import the DAG factory when a DAG file asks for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lifecycle_emails import dag_factory  # noqa: PLC0415  (Airflow comes with it)

    return getattr(dag_factory, name)
