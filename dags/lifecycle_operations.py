"""Whoever may trigger this DAG in Airflow may stop all sending: give that right to those who are on call."""

from datetime import UTC, datetime

from lifecycle_emails import lifecycle_operations_dag

dag = lifecycle_operations_dag(start_date=datetime(2026, 1, 1, tzinfo=UTC))
