"""The link from a task to the CSV file of its dry run. Reads neither the file nor a connection."""

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

# Pages that open for whoever may read the bucket. Airflow's UI drops every link but http, https and mailto.
BUCKET_PAGES = {
    "s3": "https://console.aws.amazon.com/s3/object/{bucket}?prefix={key}",
    "gs": "https://storage.cloud.google.com/{bucket}/{key}",
}


class DryRunLink(BaseOperatorLink):
    """Leads to the report of a dry run, or to the task's XCom that names it where no page shows the file.

    Airflow asks at the task's end, and keeps the answer. None is kept for a task that wrote no report.
    """

    name = "Dry run, as CSV"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:
        """Return the link for ``dry_run_report`` of a RateLimitOperator."""
        report: str | None = operator.dry_run_report  # type: ignore[attr-defined]
        if report is None:
            return ""
        scheme, place, path, *_ = urlsplit(report)
        if scheme in BUCKET_PAGES:
            bucket = place.rpartition("@")[2]  # before it stands the id of a connection
            return BUCKET_PAGES[scheme].format(bucket=bucket, key=quote(path.removeprefix("/")))
        airflow = conf.get("api", "base_url", fallback="/").rstrip("/")
        run = quote(ti_key.run_id, safe="")
        return f"{airflow}/dags/{ti_key.dag_id}/runs/{run}/tasks/{ti_key.task_id}/xcom"
