"""The long link's measure in short: every number of connections is tried, and the sink has what the ledger says."""

import json

import pytest

from bench import connections


def test_each_number_of_connections_sends_its_mails(capsys: pytest.CaptureFixture[str]) -> None:
    """That more of them are faster is for a quiet machine; `python -m bench.connections` shows it."""
    assert connections.main(["--milliseconds", "4", "--mails", "5", "--most", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rates = json.loads(lines[-1])["mails_per_s"]
    assert list(rates) == ["1", "2", "4"]
    assert min(rates.values()) > 0
    assert lines[0].endswith("1.00 of one alone each")
