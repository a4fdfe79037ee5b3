"""DAGs out of configuration: a DAG file calls one function of this package, and gets its DAG."""

from lifecycle_emails.dag_factory.campaign_dag import lifecycle_dag
from lifecycle_emails.dag_factory.maintenance_dag import lifecycle_maintenance_dag
from lifecycle_emails.dag_factory.operations_dag import lifecycle_operations_dag

__all__ = ["lifecycle_dag", "lifecycle_maintenance_dag", "lifecycle_operations_dag"]
