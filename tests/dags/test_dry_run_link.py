"""Where the link of a dry run leads: the UI shows links of http and https only, reports stand at other paths."""

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from lifecycle_emails.operators.limit_rate import RateLimitOperator

KEY = TaskInstanceKey("welcome", "limit_rate", "manual__2026-05-01T06:00:00+00:00", 1, -1)
XCOM_PAGE = "/dags/welcome/runs/manual__2026-05-01T06%3A00%3A00%2B00%3A00/tasks/limit_rate/xcom"


@pytest.mark.parametrize(
    ("report", "link"),
    [
        (
            "s3://aws@bucket/dry-runs/welcome/a+b.csv",
            "https://console.aws.amazon.com/s3/object/bucket?prefix=dry-runs/welcome/a%2Bb.csv",
        ),
        (
            "gs://bucket/dry-runs/welcome/a+b.csv",
            "https://storage.cloud.google.com/bucket/dry-runs/welcome/a%2Bb.csv",
        ),
        ("file:///var/dry-runs/welcome/a+b.csv", XCOM_PAGE),
        ("abfs://azure@container/dry-runs/welcome/a+b.csv", XCOM_PAGE),
        (None, ""),
    ],
)
def test_link_leads_to_the_file_or_to_what_names_it(report: str | None, link: str) -> None:
    operator = RateLimitOperator(task_id="limit_rate", campaign_id="welcome", include_dir="include")
    operator.dry_run_report = report

    [dry_run_link] = operator.operator_extra_links

    assert dry_run_link.get_link(operator, ti_key=KEY) == link


def test_link_leads_to_the_airflow_that_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/airflow/")
    operator = RateLimitOperator(task_id="limit_rate", campaign_id="welcome", include_dir="include")
    operator.dry_run_report = "file:///var/dry-runs/welcome/a.csv"

    [dry_run_link] = operator.operator_extra_links

    assert dry_run_link.get_link(operator, ti_key=KEY) == f"https://example.com/airflow{XCOM_PAGE}"
