"""What a person mistypes to the lifecycle command is one clear message, and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle_emails.cli import main
from tests.integration.ledger.rows import add_cohort, connect
from tests.integration.test_cli import ROOT, run


@pytest.mark.parametrize("user", ["", "  "])
@pytest.mark.parametrize(
    "order",
    [
        ["suppress"],
        ["unsuppress"],
        ["release", "day4_follow_up"],
        ["settle", "day4_follow_up", "--as", "sent"],
    ],
    ids=lambda order: order[0],
)
def test_blank_user_is_refused(capsys, ledger_database: str, order: list[str], user: str) -> None:
    status, _, said = run(capsys, "--ledger", ledger_database, *order, "--user", user, "--reason", "asked")
    assert (status, "a user id is blank" in said, "othing was changed" in said) == (
        1,
        True,
        True,
    )
    with connect(ledger_database) as ledger:
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (0,)


def wrong_usage(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as usage:
        main(arguments)
    assert usage.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("last", ["-5", "0", "all"])
def test_actions_of_no_campaign_or_no_number_are_refused(capsys, ledger_database: str, last: str) -> None:
    actions = ("--ledger", ledger_database, "actions")
    assert f"'{last}' is no number of actions; write 1 or more" in wrong_usage(
        capsys, *actions, "--last", last
    )
    status, said, refused = run(capsys, *actions, "--campaign", "day4_folow_up")
    assert (status, said, "there is no campaign day4_folow_up" in refused) == (1, "", True)


@pytest.mark.parametrize("command", [["why"], ["suppress", "--reason", "asked", "--user"]])
def test_bytes_that_are_no_utf8_are_refused(ledger_database: str, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle_emails", "--ledger", ledger_database, *command, b"\xff\xfe"],
        cwd=ROOT / "plugins",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"is no UTF-8; nothing was changed" in done.stderr) == (2, True)
    assert b"Traceback" not in done.stderr


def test_log_that_cannot_be_read_is_told_where_nothing_is_in_doubt(
    capsys, ledger_database: str, tmp_path: Path
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
    for path in (tmp_path / "nowhere.log", tmp_path):
        status, said, refused = run(
            capsys, "--ledger", ledger_database, "settle", "day4_follow_up", "--postfix-log", str(path)
        )
        assert (status, said) == (1, "")
        assert f"the log {path} cannot be read, so nothing was settled" in refused
