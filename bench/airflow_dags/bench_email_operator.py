"""The other way in Airflow: an EmailOperator mapped per user."""

import json
from pathlib import Path

from airflow.providers.smtp.operators.smtp import EmailOperator
from airflow.sdk import DAG

MAILS = json.loads(Path(__file__).with_name("mails.json").read_text())

with DAG("bench_email_operator", schedule=None, catchup=False):
    EmailOperator.partial(
        task_id="send", conn_id="lifecycle_smtp", from_email="hello@example.com"
    ).expand_kwargs(MAILS)
