"""Look after the sends ledger of all campaigns: sweep it, report gaps, try stopped mail servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context

from lifecycle_emails.campaign import Campaign, campaign_ids, load_campaign
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators.campaign_operator import mistakes_fail_at_once, open_ledger


class MaintainOperator(BaseOperator):
    """Sweep the ledger of all campaigns.

    What has waited too long for its answer becomes ``in_doubt``, what is past its deadline is held as
    ``stale``, gaps between cohorts are found, old detail is dropped. What people should know becomes an
    alert, which MaintenanceAlertOperator delivers. A campaign whose file has a mistake is left out, and said
    so.

    Returns counts.

    :param include_dir: folder that holds ``campaigns/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("include_dir", "ledger_conn_id")
    ui_color = "#e6edf7"

    def __init__(self, *, include_dir: str, ledger_conn_id: str = "lifecycle_ledger", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.include_dir = include_dir
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002  (Airflow's signature)
        """Do one round."""
        from lifecycle_emails.ledger.upkeep import keep_up  # noqa: PLC0415  (psycopg comes with it)

        campaigns = list(self._campaigns())
        with mistakes_fail_at_once(), open_ledger(self.ledger_conn_id) as ledger:
            done = keep_up(ledger, campaigns, now=datetime.now(UTC))
        self.log.info(
            "%d campaigns: %d mails are newly in doubt, %d users held as stale, %d cohorts closed, %d cohorts"
            " were never planned, %d old details dropped.",
            len(campaigns),
            done.in_doubt,
            done.stale,
            done.closed,
            done.missing,
            done.dropped,
        )
        return done.as_dict()

    def _campaigns(self) -> Iterator[Campaign]:
        for campaign_id in campaign_ids(Path(self.include_dir)):
            try:
                yield load_campaign(Path(self.include_dir), campaign_id)
            except ConfigurationError as mistake:
                self.log.warning("Campaign %s is left out of the search for gaps: %s", campaign_id, mistake)
