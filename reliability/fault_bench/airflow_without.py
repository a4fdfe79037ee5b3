"""What the Airflow rows are played without: protections taken out of a patched copy of the package.

Where two protections stand behind each other, one copy lacks both, and says so.
"""

from __future__ import annotations

from reliability.fault_bench.fault import Patch, Variant

_GATE_IGNORED = Patch(
    "lifecycle_emails/ledger/gate.py",
    "        question.answered.wait()\n        return question.passage\n",
    "        question.answered.wait()\n        return Passage.PASSED\n",
)
_NO_LEASE = Patch(
    "lifecycle_emails/sql/queries/take_leases.sql",
    "  AND (b.lease_until IS NULL OR b.lease_until < now() OR b.lease_holder = %(holder)s)\n",
    "",
)
_DEAF_TO_STOP = Patch(
    "lifecycle_emails/operators/send_batch.py",
    '            self._stop.set()\n            self.log.warning("Asked to stop',
    '            self.log.warning("Asked to stop',
)

NO_FENCE = Variant("the gate's verdict, and the lease before it", (_GATE_IGNORED, _NO_LEASE))
"""Whoever has read a row as ready sends it."""

DEAF = Variant("on_kill", (_DEAF_TO_STOP,))
"""A task that is asked to stop goes on until it is killed."""

DEAF_WITHOUT_FENCE = Variant(
    "on_kill, the gate's verdict and the lease", (_DEAF_TO_STOP, _GATE_IGNORED, _NO_LEASE)
)

SENT_AGAIN_WHEN_OVERDUE = Variant(
    "an overdue answer is a doubt",
    (
        Patch(
            "lifecycle_emails/sql/queries/sweep_cohorts.sql", "SET state = 'in_doubt'", "SET state = 'ready'"
        ),
    ),
)
"""The careless lease: who has not answered in time is sent again."""

FORGETFUL = Variant(
    "the row's state, read and at the gate",
    (
        _GATE_IGNORED,
        Patch(
            "lifecycle_emails/sql/queries/ready_batches.sql",
            "AND state = 'ready'",
            "AND state IN ('ready', 'sent')",
        ),
        Patch(
            "lifecycle_emails/sql/queries/due_users.sql",
            "AND s.state = 'ready'",
            "AND s.state IN ('ready', 'sent')",
        ),
        Patch(
            "lifecycle_emails/delivery/sender.py",
            "if at_most is not None or after == before:",
            "if after is not None:",
        ),
    ),
)
"""A run that does what it is told, as if nothing had been sent before."""

IMPATIENT = Variant(
    "the wait for answers under way",
    (
        Patch(
            "lifecycle_emails/operators/send_batch.py",
            "            stop.set()\n            wait([answer], timeout=STOP_SECONDS)\n",
            "            stop.set()\n",
        ),
    ),
)

ONLY_ITS_OWN_DAY = Variant(
    "a scheduled run takes the gaps before it",
    (
        Patch(
            "lifecycle_emails/operators/run_request.py",
            'with_earlier=run_type == "scheduled",',
            "with_earlier=False,",
        ),
    ),
)

EASILY_PLEASED = Variant(
    "reconcile's look at failed tasks and at the ledger",
    (
        Patch(
            "lifecycle_emails/operators/reconcile.py",
            "        problems = [*failed, *result.problems]\n",
            "        problems: list[str] = []\n",
        ),
    ),
)

LENIENT_TEMPLATES = Variant(
    "strict variables, and their check before the first mail",
    (
        Patch(
            "lifecycle_emails/delivery/mails.py",
            "                self._tools.templates.check_variables(columns.variables)\n",
            "                len(columns.variables)\n",
        ),
        Patch("lifecycle_emails/mail_template.py", "undefined=StrictUndefined,", "undefined=Undefined,"),
        Patch(
            "lifecycle_emails/mail_template.py",
            "    StrictUndefined,\n",
            "    StrictUndefined,\n    Undefined,\n",
        ),
    ),
)

MARKED_BEFORE_TOLD = Variant(
    "an alert is marked only when its callback has returned",
    (
        Patch(
            "lifecycle_emails/operators/alert.py",
            "        record_attempt(ledger, alert.alert_id, key)\n",
            "        record_attempt(ledger, alert.alert_id, key)\n"
            "        record_delivery(ledger, alert.alert_id, key)\n",
        ),
    ),
)
