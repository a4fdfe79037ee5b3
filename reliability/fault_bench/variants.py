"""Copies of the package with a protection taken out, to show that the bench sees its absence."""

from __future__ import annotations

import shutil
from pathlib import Path

from reliability.fault_bench.fault import Patch, Variant
from reliability.fault_bench.processes import PACKAGE_ROOT, BenchError

GATE = "lifecycle_emails/ledger/gate.py"
LANE = "lifecycle_emails/delivery/lane.py"
SENDER = "lifecycle_emails/delivery/sender.py"
MAILS = "lifecycle_emails/delivery/mails.py"
REPLY = "lifecycle_emails/delivery/reply.py"
MIGRATIONS = "lifecycle_emails/sql/migrations/"
QUERIES = "lifecycle_emails/sql/queries/"

ASK = "        passage = self._gate.ask(mail.user_id, attempt, mail.address_hash)\n"

NO_LATE_ACCEPTANCE = Patch(
    QUERIES + "record_outcomes.sql", "s.state NOT IN ('sent', 'rejected')\n", "s.state = 'sending'\n"
)

DOT_BEFORE_GATE = Variant(
    "the dot is written before the gate is asked",
    (
        Patch(LANE, ASK, "        outcome = self.session.finish()\n" + ASK),
        Patch(LANE, "        outcome = self.session.finish()\n        recorded_as", "        recorded_as"),
    ),
)
SWEPT_TO_READY = Variant(
    "a send without an answer becomes ready again",
    (Patch(QUERIES + "sweep_cohorts.sql", "SET state = 'in_doubt'", "SET state = 'ready'"),),
)
GUARD_OF_STATE = (
    Patch(
        QUERIES + "pass_gate.sql", "WHERE s.ctid = j.row_at AND s.state = 'ready'", "WHERE s.ctid = j.row_at"
    ),
    Patch(MIGRATIONS + "0003_rules.sql", "    WHEN 'sent' THEN false\n", "    WHEN 'sent' THEN true\n"),
    Patch(
        MIGRATIONS + "0003_rules.sql",
        "OR (OLD.state IN ('sending', 'in_doubt', 'sent') AND NEW",
        "OR (false AND NEW",
    ),
    Patch(
        MIGRATIONS + "0003_rules.sql",
        "WHEN (OLD.state = 'sent' AND (NEW.sent_at",
        "WHEN (false AND (NEW.sent_at",
    ),
    Patch(MIGRATIONS + "0001_ledger.sql", "CHECK ((state = 'sent') = (sent_at IS NOT NULL))", "CHECK (true)"),
)
NO_GUARD_OF_STATE = Variant(
    "the gate takes a row in any state; the triggers and the check behind it are gone too", GUARD_OF_STATE
)
NO_GUARD_AND_NO_LEASE = Variant(
    "the gate takes a row in any state, triggers, check and batch lease behind it are gone too",
    (
        *GUARD_OF_STATE,
        Patch(
            QUERIES + "take_leases.sql",
            "  AND (b.lease_until IS NULL",
            "  AND (true OR b.lease_until IS NULL",
        ),
    ),
)
NO_CHECK_OF_TIME = Variant(
    "the ten seconds between asking the gate and the dot are not checked",
    (Patch(LANE, "        if uptime() - asked_at > DOT_WITHIN_SECONDS:", "        if False:"),),
)
NO_WAIT_FOR_ANSWERS = Variant(
    "answers to dots already written are not waited for",
    (Patch(SENDER, "ANSWERS_AFTER_STOP_SECONDS = 2.5", "ANSWERS_AFTER_STOP_SECONDS = 0.0"),),
)
PASSED_WITHOUT_COMMIT = Variant(
    "the gate says passed although no answer to COMMIT was read; a late acceptance is not believed",
    (
        NO_LATE_ACCEPTANCE,
        Patch(
            GATE,
            "question.answer(Passage.NOT_COMMITTED)\n            self._recover(records)",
            "question.answer(Passage.PASSED)\n            self._recover(records)",
        ),
    ),
)
SILENCE_IS_FAILURE = Variant(
    "no answer to the dot counts as a failure to be retried",
    (Patch(REPLY, "    return Verdict.IN_DOUBT if phase is Phase.DOT else", "    return"),),
)
PLANS_TWICE = Variant(
    "a plan that is repeated begins anew",
    (
        Patch(
            QUERIES + "plan_arrivals.sql",
            "    WHERE s.user_id = a.user_id AND s.campaign",
            "    WHERE false AND s.campaign",
        ),
    ),
)
LATE_ANSWER_IGNORED = Variant(
    "an answer that comes after the sweep is not recorded",
    (
        Patch(
            QUERIES + "record_outcomes.sql",
            "s.state IN ('sending', 'in_doubt')\n",
            "s.state = 'sending'\n",
        ),
        NO_LATE_ACCEPTANCE,
    ),
)
ANY_5XX_REJECTS = Variant(
    "every 5xx before the dot is taken for a word about the recipient",
    (
        Patch(
            REPLY, "    if phase is Phase.RCPT and (\n", "    if code >= 500 or phase is Phase.RCPT and (\n"
        ),
    ),
)
NO_REFUSAL_WATCH = Variant(
    "nobody notices that a provider refuses everything",
    (
        Patch(
            "lifecycle_emails/delivery/refusal_watch.py",
            "REFUSALS_IN_A_ROW = 20",
            "REFUSALS_IN_A_ROW = 10**9",
        ),
    ),
)
GATE_BEFORE_OFFER = Variant(
    "the gate is asked before there is a connection",
    (
        Patch(
            LANE,
            "        try:\n            refused = self._offer(mail)\n",
            "        self._gate.ask(mail.user_id, uuid4(), mail.address_hash)\n"
            "        try:\n            refused = self._offer(mail)\n",
        ),
    ),
)
NO_CAP_LOCK = Variant(
    "slots are counted without the cap lock",
    (
        Patch(
            QUERIES + "lock_frequency_cap.sql",
            "SELECT pg_advisory_xact_lock(hashtextextended('lifecycle frequency cap', 0))",
            "SELECT 1",
        ),
    ),
)
NO_CAMPAIGN_LOCK = Variant(
    "set steps of one campaign do not take turns",
    (
        Patch(
            QUERIES + "lock_campaign.sql",
            "SELECT pg_advisory_xact_lock(hashtextextended('lifecycle campaign ' || %(campaign)s, 0))",
            "SELECT %(campaign)s::text",
        ),
    ),
)
NO_SUPPRESSION_AT_GATE = Variant(
    "the gate does not look at suppressions",
    (Patch(QUERIES + "pass_gate.sql", "WHERE x.user_id = a.user_id AND", "WHERE false AND"),),
)
MARKED_BEFORE_CALL = Variant(
    "an alert is marked as delivered before the callback is called",
    (
        Patch(
            "lifecycle_emails/operators/alert.py",
            "            call_with_alert(callbacks[key], context, as_context(alert))\n",
            "            record_delivery(ledger, alert.alert_id, key)\n"
            "            call_with_alert(callbacks[key], context, as_context(alert))\n",
        ),
    ),
)
LAST_GROUP_FORGOTTEN = Variant(
    "the last, smaller group of batches is forgotten",
    (
        Patch(
            "lifecycle_emails/ledger/batches.py",
            "    if batches:\n        yield",
            "    if False:\n        yield",
        ),
    ),
)
NO_DOT_STUFFING = Variant(
    "lines that begin with a dot are not stuffed; the encoding that hides a lone dot is gone too",
    (
        Patch(
            "lifecycle_emails/delivery/wire.py",
            '    return content.replace(b"\\r\\n.", b"\\r\\n..")',
            "    return content",
        ),
        Patch(
            "lifecycle_emails/mime.py",
            '    return b2a_qp(f"{line}\\r\\n".encode("utf-8", "replace"), istext=True)',
            '    return f"{line}\\r\\n".encode("utf-8", "replace")',
        ),
    ),
)
ONE_STOPS_ALL = Variant(
    "a mail that cannot be rendered stops those after it",
    (Patch(MAILS, '            self._hold(user_id, "render_failed", str(error))\n', "            raise\n"),),
)
NOT_SPACED = Variant(
    "each task's grants begin at once, one like the other; the trigger behind them is gone too",
    (
        Patch(
            QUERIES + "take_grants.sql",
            "SELECT CASE WHEN paced.rate IS NULL THEN timed.moment\n",
            "SELECT CASE WHEN true THEN timed.moment\n",
        ),
        Patch(QUERIES + "take_grants.sql", "    coalesce(1 / g.rate, 0),\n", "    0::double precision,\n"),
        Patch(
            MIGRATIONS + "0009_throttle.sql",
            "WHEN (NEW.last_grant_at < lifecycle.last_grant(OLD, now()) OR",
            "WHEN (false OR",
        ),
    ),
)
DOUBT_IS_GREEN = Variant(
    "a run with a row in doubt counts as done",
    (Patch("lifecycle_emails/ledger/reconciliation.py", "    if doubtful:\n", "    if False:\n"),),
)


def copy_package(target: Path) -> Path:
    """A copy of the import root as it is now: the bench goes on with it, whatever is edited meanwhile."""
    shutil.copytree(PACKAGE_ROOT, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return target


def make_variant(variant: Variant, original: Path, target: Path) -> Path:
    """A patched copy. BenchError where a patch does not fit exactly once: the package has moved on."""
    shutil.copytree(original, target, ignore=shutil.ignore_patterns("__pycache__"))
    for patch in variant.patches:
        file = target / patch.file
        text = file.read_text(encoding="utf-8")
        if text.count(patch.old) != 1:
            raise BenchError(
                f"variant '{variant.name}': {patch.file} holds the text to replace"
                f" {text.count(patch.old)} times; bring the patch in step with the file:\n{patch.old}"
            )
        file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
    return target
