"""A task that does nothing: what Airflow itself takes of memory for one."""

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from task_memory import note_memory


def do_nothing() -> None:
    """Do nothing."""


with DAG("bench_idle", schedule=None, catchup=False):
    PythonOperator(task_id="idle", python_callable=do_nothing, on_success_callback=note_memory)
