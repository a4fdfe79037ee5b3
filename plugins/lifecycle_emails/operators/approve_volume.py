"""Ask a person whether a cohort of unusual size goes out, and write the answer into the ledger."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseNotifier, Context, conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lifecycle_emails.address import scrub_addresses
from lifecycle_emails.campaign import VolumeBreaker
from lifecycle_emails.operators.alert_callbacks import AlertCallback, call_with_alert
from lifecycle_emails.operators.campaign_operator import (
    EXTRACT_TASK_ID,
    CampaignOperator,
    extracted_cohorts,
    mistakes_fail_at_once,
    open_ledger,
    read_run,
)
from lifecycle_emails.operators.run_request import run_name

if TYPE_CHECKING:
    from lifecycle_emails.ledger.approving import Answered, AwaitingCohort

# What imports psycopg is imported where it is used: every parse of a DAG file imports this module.
# ruff: noqa: PLC0415

SEND = "Send"
DO_NOT_SEND = "Do not send"
APPROVE_TASK_ID = "approve_volume"
ASKED = "asked"
"""XCom key of the cohorts asked about, each with the size that was shown."""


class ApproveVolumeOperator(HITLOperator):
    """Ask under Airflow's required actions whether the cohorts that await approval go out.

    One question for all of the run's cohorts that do, with their figures. Nobody's answer within the
    campaign's ``approve_within_hours`` means "Do not send". The campaign's callbacks that are Airflow
    notifiers are told, with ``alert`` as everywhere; one that fails is logged and keeps nobody from
    answering. Ends as skipped when nothing awaits approval. The answer is RecordApprovalOperator's to record.

    Returns what Airflow's HITLOperator does: the chosen option, who chose it and when.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param breaker: the campaign's volume breaker: who may answer, and within what time
    :param callbacks: callbacks of the campaign
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param cohorts_from: id of the ExtractCohortOperator's task, whose result names the cohorts to ask about
    """

    template_fields: Sequence[str] = (
        *HITLOperator.template_fields,
        "campaign_id",
        "include_dir",
        "ledger_conn_id",
    )
    ui_color = "#f9e4e4"

    def __init__(
        self,
        *,
        campaign_id: str,
        include_dir: str,
        breaker: VolumeBreaker,
        callbacks: Sequence[AlertCallback] = (),
        ledger_conn_id: str = "lifecycle_ledger",
        cohorts_from: str = EXTRACT_TASK_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject=f"{campaign_id}: send a cohort of unusual size?",
            options=[SEND, DO_NOT_SEND],
            defaults=DO_NOT_SEND,
            response_timeout=timedelta(hours=breaker.approve_within_hours),
            assigned_users=[{"id": user, "name": user} for user in breaker.approvers] or None,
            **kwargs,
        )
        self.campaign_id = campaign_id
        self.include_dir = include_dir
        self.callbacks = callbacks
        self.ledger_conn_id = ledger_conn_id
        self.cohorts_from = cohorts_from

    def execute(self, context: Context) -> None:
        """Ask, and tell the notifiers that somebody is asked."""
        from lifecycle_emails.ledger.approving import awaiting_cohorts

        with mistakes_fail_at_once():
            campaign, request = read_run(context, self.include_dir, self.campaign_id)
            if request.dry_run:
                raise AirflowSkipException("A dry run asks nobody.")
            cohorts = extracted_cohorts(context, self.cohorts_from, request.cohort_date)
            with open_ledger(self.ledger_conn_id) as ledger:
                awaiting = awaiting_cohorts(ledger, campaign.id, cohorts)
        if not awaiting:
            raise AirflowSkipException("No cohort awaits approval.")
        self.body = question(campaign.id, awaiting)
        asked = [[cohort.cohort_date.isoformat(), cohort.size] for cohort in awaiting]
        context["ti"].xcom_push(key=ASKED, value=asked)
        alert = self._alert(context, awaiting)
        tell = [
            partial(self._tell, notifier, alert)
            for notifier in self.callbacks
            if isinstance(notifier, BaseNotifier)
        ]
        self.notifiers = cast("Sequence[BaseNotifier]", tell)
        super().execute(context)

    def _alert(self, context: Context, awaiting: Sequence[AwaitingCohort]) -> dict[str, Any]:
        """Give what notifiers are told, in the shape of every alert."""
        base_url = conf.get("api", "base_url", fallback="http://localhost:8080")
        link = self.generate_link_to_ui_from_context(context=context, base_url=base_url)
        text = f"{self.body}\n\nAnswer in Airflow: {link}"
        return {
            "id": str(context["ti"].id),
            "kind": "awaiting_approval",
            "campaign": self.campaign_id,
            "cohort_date": awaiting[-1].cohort_date,
            "run": run_name(cast("dict[str, Any]", context)),
            "created_at": datetime.now(UTC),
            "facts": {cohort.cohort_date.isoformat(): cohort.words for cohort in awaiting},
            "subject": f"Approval needed: {self.subject}",
            "text": text,
            "html": "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line),
        }

    def _tell(self, notifier: AlertCallback, alert: dict[str, Any], context: Context) -> None:
        try:
            call_with_alert(notifier, cast("dict[str, Any]", context), alert)
        except Exception as error:  # noqa: BLE001  (whatever it is, the question stands)
            trace = scrub_addresses("".join(traceback.format_exception(error)))
            self.log.error("A notifier failed; the question stands all the same. %s", trace)  # noqa: TRY400


class RecordApprovalOperator(CampaignOperator):
    """Write into the ledger who approved or refused the cohorts that ApproveVolumeOperator asked about.

    Running it again changes nothing. An answer about fewer users than there are by now, or about a cohort
    that somebody has decided on meanwhile, changes nothing and is said.

    Returns the cohorts approved as ``cohort_dates``, for a RateLimitOperator, and those ``refused``.

    :param campaign_id: the campaign's id, the name of its file without ``.yaml`` (templated)
    :param include_dir: folder that holds ``campaigns/``, ``audiences/`` and ``templates/`` (templated)
    :param ledger_conn_id: Airflow connection to the Postgres database with the sends ledger (templated)
    :param answer_from: id of the ApproveVolumeOperator's task
    """

    template_fields: Sequence[str] = CampaignOperator.template_fields
    ui_color = "#f9e4e4"

    def __init__(self, *, answer_from: str = APPROVE_TASK_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answer_from = answer_from

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Record the answer."""
        asked = context["ti"].xcom_pull(task_ids=self.answer_from, key=ASKED)
        answer = context["ti"].xcom_pull(task_ids=self.answer_from)
        if not asked or not answer:
            raise AirflowFailException(
                f"{self.answer_from} has no answer to record, so nothing was changed: marking it as a success"
                " approves nothing. Clear it, and answer it under required actions."
            )
        with mistakes_fail_at_once():
            answered = self._record(asked, answer)
        for days, verdict in ((answered.approved, "approved"), (answered.refused, "refused")):
            if days:
                self.log.info("%s: %s.", verdict.capitalize(), ", ".join(map(str, days)))
        for unchanged in answered.unchanged:
            self.log.warning("Not changed by this answer: %s.", unchanged)
        return {
            "cohort_dates": [day.isoformat() for day in answered.approved],
            "refused": [day.isoformat() for day in answered.refused],
        }

    def _record(self, asked: Sequence[tuple[str, int]], answer: dict[str, Any]) -> Answered:
        from lifecycle_emails.ledger.approving import record_answer
        from lifecycle_emails.volume import VolumeVerdict

        approved = answer["chosen_options"] == [SEND]
        user = answer["responded_by_user"]
        with open_ledger(self.ledger_conn_id) as ledger:
            return record_answer(
                ledger,
                self.campaign_id,
                [(date.fromisoformat(day), size) for day, size in asked],
                VolumeVerdict.APPROVED if approved else VolumeVerdict.REFUSED,
                actor=user["name"] if user else None,
                reason=f"answered in Airflow: {SEND if approved else DO_NOT_SEND}"
                if user
                else "no answer in time",
            )


def question(campaign_id: str, awaiting: Sequence[AwaitingCohort]) -> str:
    """Put the question to a person, in Markdown: the cohorts with their figures, what each answer does."""
    cohorts = "\n".join(f"- **{cohort.cohort_date}**: {cohort.words}." for cohort in awaiting)
    return (
        f"Campaign {campaign_id} has cohorts of an unusual size or source. None of their users"
        f" is mailed until somebody decides:\n\n{cohorts}\n\n"
        f"**{SEND}** mails them, under frequency cap, suppressions and deadline. **{DO_NOT_SEND}**, or no"
        " answer in time, refuses them; a person can release them later, before their deadline."
    )
