"""A person's orders: attributed, with a reason, harmless to repeat, and without an address in any column."""

from __future__ import annotations

import pytest

from lifecycle_emails.errors import InvalidAddress, LedgerError
from lifecycle_emails.ledger.orders import halt, resume, suppress, unsuppress
from tests.integration.ledger.rows import connect


def test_suppress_twice_is_one_suppression_and_says_who_and_why(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        assert suppress(ledger, user_id="42", reason="unsubscribed", actor="ada")
        assert not suppress(ledger, user_id="42", reason="again", actor="bob")
        assert suppress(ledger, user_id="42", campaign_id="day4_follow_up", reason="there too")
        rows = ledger.execute(
            "SELECT user_id, campaign, reason, suppressed_by FROM lifecycle.suppressions ORDER BY suppression_id"
        ).fetchall()
    assert rows == [("42", None, "unsubscribed", "ada"), ("42", "day4_follow_up", "there too", "postgres")]


def test_unsuppress_lifts_exactly_what_was_named_and_keeps_the_record(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        suppress(ledger, address="Ada@example.com", reason="complained")
        assert not unsuppress(ledger, address="ada@example.com", campaign_id="day4_follow_up", reason="asked")
        assert unsuppress(ledger, address="ada@EXAMPLE.com", reason="asked", actor="bob")
        assert not unsuppress(ledger, address="ada@example.com", reason="asked")
        rows = ledger.execute("SELECT reason, lifted_by, lift_reason FROM lifecycle.suppressions").fetchall()
    assert rows == [("complained", "bob", "asked")]


def test_suppressed_address_is_kept_only_as_a_hash(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        suppress(ledger, address="ada@example.com", reason="complained")
        [row] = ledger.execute("SELECT s::text FROM lifecycle.suppressions AS s").fetchall()
    assert "example" not in row[0]


def test_halt_and_resume_are_told_apart_by_campaign(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        assert halt(ledger, reason="incident")
        assert not halt(ledger, reason="incident again")
        assert halt(ledger, campaign_id="day4_follow_up", reason="template")
        assert resume(ledger, reason="over")
        assert not resume(ledger, reason="over")
        rows = ledger.execute("SELECT campaign FROM lifecycle.halts WHERE lifted_at IS NULL").fetchall()
    assert rows == [("day4_follow_up",)]


def test_order_without_reason_or_with_two_whoms_changes_nothing(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        with pytest.raises(LedgerError, match="reason"):
            suppress(ledger, user_id="42", reason="  ")
        with pytest.raises(LedgerError, match="exactly one"):
            suppress(ledger, user_id="42", address="ada@example.com", reason="x")
        with pytest.raises(LedgerError, match="exactly one"):
            unsuppress(ledger, reason="x")
        with pytest.raises(InvalidAddress):
            suppress(ledger, address="no address", reason="x")
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (0,)


def test_order_to_a_ledger_that_lost_its_installation_row_says_so(ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        ledger.execute("DELETE FROM lifecycle.installation")
        with pytest.raises(LedgerError, match="was its installation row deleted"):
            suppress(ledger, address="ada@example.com", reason="unsubscribed")
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (0,)
