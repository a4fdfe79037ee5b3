"""The answer to COMMIT is lost while a person or maintenance changes the ledger: done once, and safe to repeat.

For the gate, plans, judgements and leases see test_gate.py and the fault bench.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger import orders
from lifecycle_emails.ledger.approving import decide_volume
from lifecycle_emails.ledger.extending import Extension, extend, look_at_extension
from lifecycle_emails.ledger.releasing import release
from lifecycle_emails.ledger.settling import SettleAs, Which, settle
from lifecycle_emails.ledger.upkeep import sweep
from lifecycle_emails.volume import VolumeVerdict
from tests.cutting_proxy import CuttingProxy
from tests.integration.ledger.rows import COHORT_DATE, add_cohort, add_sends, connect, make_doubts, states

Ledger = psycopg.Connection[Any]
CAMPAIGN = "day4_follow_up"
WRITTEN = (
    "send_events", "alerts", "suppressions", "halts", "extensions", "volume_decisions",
)  # fmt: skip


def approved(ledger: Ledger) -> Extension:
    """What somebody looked at before the first try, and again before a second: the same figures as then."""
    seen = look_at_extension(ledger, CAMPAIGN, COHORT_DATE, COHORT_DATE, 2)
    return Extension(**{**vars(seen), "earlier": 0})


CHANGES: dict[str, Callable[[Ledger], object]] = {
    "sweep": lambda ledger: sweep(ledger, CAMPAIGN, [COHORT_DATE]),
    "settle as sent": lambda ledger: settle(ledger, CAMPAIGN, Which(), SettleAs.SENT, reason="in the log"),
    "settle as send again": lambda ledger: settle(
        ledger, CAMPAIGN, Which(), SettleAs.SEND_AGAIN, reason="not in the log"
    ),
    "release": lambda ledger: release(ledger, CAMPAIGN, ["rejected"], reason="mended"),
    "extend": lambda ledger: extend(ledger, approved(ledger), reason="the provider was down"),
    "decide on a volume": lambda ledger: decide_volume(
        ledger, CAMPAIGN, COHORT_DATE, VolumeVerdict.APPROVED, "ada", "a fair"
    ),
    "suppress": lambda ledger: orders.suppress(ledger, user_id="planned", reason="asked"),
    "halt": lambda ledger: orders.halt(ledger, reason="wrong text"),
}


@pytest.fixture
def ledger(ledger_database: str) -> Any:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["doubt"])
        overdue = datetime.now(UTC) - timedelta(minutes=1)
        add_sends(ledger, ["overdue"], state="sending", answer_due=overdue)
        add_sends(ledger, ["rejected"], state="rejected")
        add_sends(ledger, ["planned"])
        ledger.execute(
            "UPDATE lifecycle.cohorts SET audience_read_at = now(), audience_size = 4, volume_size = 4,"
            " volume_verdict = 'awaiting_approval', volume_figures = '{}'"
        )
        yield ledger


def written(ledger: Ledger) -> dict[str, Any]:
    """States of all users, and how much stands in each table that changes are written into."""
    counts = {
        table: ledger.execute(f"SELECT count(*) FROM lifecycle.{table}").fetchone() for table in WRITTEN
    }
    deadline = ledger.execute("SELECT not_after, volume_verdict FROM lifecycle.cohorts").fetchone()
    return {**states(ledger), **counts, "cohort": deadline}


@pytest.mark.parametrize("name", CHANGES)
def test_change_whose_answer_is_lost_is_done_once_and_may_be_tried_again(
    ledger: Ledger, ledger_database: str, postgres_server, name: str
) -> None:
    change = CHANGES[name]
    before = written(ledger)
    with CuttingProxy(postgres_server.port) as proxy:
        url = ledger_database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with connect(url) as cut:
            proxy.lose_next_commit()
            with pytest.raises(psycopg.OperationalError):
                change(cut)
    done = written(ledger)
    assert done != before, "the COMMIT was not reached"
    with suppress(LedgerError):  # "not in doubt", "extended since you looked": it says what is so
        change(ledger)
    assert written(ledger) == done
