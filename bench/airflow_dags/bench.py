"""The package's own daily DAG, as a team has it in its Airflow; its tasks note what memory they took."""

from datetime import UTC, datetime, timedelta

from task_memory import note_memory

from lifecycle_emails import lifecycle_dag

dag = lifecycle_dag(
    "bench",
    # an hour ago: no tick of the schedule has been missed since, so that only the benchmark starts runs
    start_date=datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1),
    default_args={"on_success_callback": note_memory},
)
