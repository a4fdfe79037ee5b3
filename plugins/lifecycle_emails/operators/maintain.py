"""Look after the sends ledger of all campaigns: sweep it, report gaps, try stopped mail servers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from lifecycle_emails.campaign import Campaign, campaign_ids, load_campaign
from lifecycle_emails.errors import ConfigurationError
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.campaign_operator import mistakes_fail_at_once, open_ledger
from lifecycle_emails.operators.sending_tools import sending_tools

if TYPE_CHECKING:
    from lifecycle_emails.ledger.evidence import EvidenceSource
    from lifecycle_emails.ledger.session import LedgerConnection

ANSWERS = {
    True: "it accepts mail again, and is used again",
    False: "it still refuses",
    None: "no mail is due through it, or its throttle gives no turn, so it was not tried",
}


class MaintainOperator(BaseOperator):
    """Sweep the ledger of all campaigns.

    What has waited too long for its answer becomes ``in_doubt``, what is past its deadline is held as
    ``stale``, gaps between cohorts are found, old detail is dropped. What people should know becomes an
    alert, which MaintenanceAlertOperator delivers. A campaign whose file has a mistake is left out, and said
    so. A ledger that may have gone back in time halts all sending; the environment variable
    ``LIFECYCLE_WITNESS`` names a file or a second database that remembers its newest mark.

    Returns counts.

    :param include_dir: folder that holds ``campaigns/`` (templated)
    :param evidence: sources that know what became of mails in doubt; what they prove is settled
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("include_dir", "ledger_conn_id")
    ui_color = "#e6edf7"

    def __init__(
        self,
        *,
        include_dir: str,
        evidence: Sequence[EvidenceSource] = (),
        ledger_conn_id: str = "lifecycle_ledger",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.include_dir = include_dir
        self.evidence = evidence
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002  (Airflow's signature)
        """Do one round."""
        from lifecycle_emails.ledger.approving import count_awaiting_approval  # noqa: PLC0415
        from lifecycle_emails.ledger.upkeep import (  # noqa: PLC0415  (psycopg comes with it)
            keep_up,
            oldest_open_rows,
        )

        campaigns = list(campaigns_without_mistakes(self, self.include_dir))
        with mistakes_fail_at_once(), open_ledger(self.ledger_conn_id) as ledger:
            try:
                self._compare_with_witness(ledger)
            finally:  # a witness that cannot be read keeps no doubt from being told
                done = keep_up(ledger, campaigns, now=datetime.now(UTC), evidence=self.evidence)
            metrics.count("lifecycle.in_doubt", done.in_doubt)
            for campaign_id, seconds in oldest_open_rows(ledger):
                metrics.gauge("lifecycle.oldest_open_row", seconds, campaign=campaign_id)
            for campaign_id, cohorts in count_awaiting_approval(ledger):
                metrics.gauge("lifecycle.awaiting_approval", cohorts, campaign=campaign_id)
        self.log.info(
            "%d campaigns: %d mails are newly in doubt, %d were settled by evidence, %d users held as stale,"
            " %d cohorts closed, %d cohorts were never planned, %d old details dropped.",
            len(campaigns),
            done.in_doubt,
            done.settled,
            done.stale,
            done.closed,
            done.missing,
            done.dropped,
        )
        return done.as_dict()

    def _compare_with_witness(self, ledger: LedgerConnection) -> None:
        from lifecycle_emails.ledger.witness import (  # noqa: PLC0415
            WITNESS_VARIABLE,
            durability_warnings,
            watch,
            witness_of,
        )

        witness = witness_of(os.environ.get(WITNESS_VARIABLE))
        for warning in durability_warnings(ledger, witness):
            self.log.warning("The ledger's server: %s.", warning)
        if finding := watch(ledger, witness):
            self.log.error("All sending is halted, the ledger may have gone back in time: %s.", finding)


class ProbeProvidersOperator(BaseOperator):
    """Try each stopped mail server with one mail that is due, and start it again when it accepts that.

    The mail passes the ledger's gate as any other. Ends as skipped when no mail server is stopped.

    Returns, by SMTP connection, whether the mail was accepted; those without a mail to try are left out.

    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    """

    template_fields: Sequence[str] = ("include_dir", "ledger_conn_id")
    ui_color = "#fdf1dc"

    def __init__(self, *, include_dir: str, ledger_conn_id: str = "lifecycle_ledger", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.include_dir = include_dir
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> dict[str, bool]:  # noqa: ARG002  (Airflow's signature)
        """Try every stopped mail server once."""
        from lifecycle_emails.ledger.provider import stopped_providers  # noqa: PLC0415

        with mistakes_fail_at_once(), open_ledger(self.ledger_conn_id) as ledger:
            stopped = {stop.smtp_conn_id for stop in stopped_providers(ledger)}
        if not stopped:
            raise AirflowSkipException("No mail server is stopped.")
        answers: dict[str, bool] = {}
        for campaign in campaigns_without_mistakes(self, self.include_dir):
            if campaign.smtp_conn_id in stopped - answers.keys():
                accepted = self._probe(campaign)
                if accepted is not None:
                    answers[campaign.smtp_conn_id] = accepted
        for conn_id in sorted(stopped):
            self.log.info("Mail server of connection %s: %s.", conn_id, ANSWERS[answers.get(conn_id)])
        return answers

    def _probe(self, campaign: Campaign) -> bool | None:
        from lifecycle_emails.delivery.probe import probe_provider  # noqa: PLC0415

        try:
            return probe_provider(sending_tools(campaign, Path(self.include_dir), self.ledger_conn_id))
        except ConfigurationError as mistake:
            self.log.warning("Campaign %s cannot be used to try its mail server: %s", campaign.id, mistake)
            return None


def campaigns_without_mistakes(operator: BaseOperator, include_dir: str) -> Iterator[Campaign]:
    """Load all campaigns; one whose file has a mistake is left out, and the operator's log says so."""
    for campaign_id in campaign_ids(Path(include_dir)):
        try:
            yield load_campaign(Path(include_dir), campaign_id)
        except ConfigurationError as mistake:
            operator.log.warning("Campaign %s is left out: %s", campaign_id, mistake)
