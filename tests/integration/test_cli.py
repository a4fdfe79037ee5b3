"""The lifecycle command as a person types it: what it prints, its exit status, what it changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle_emails.cli import main
from tests.factories import IncludeFolder
from tests.integration.ledger.rows import connect

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out.strip(), said.err.strip()


def test_migrate_applies_then_says_there_is_nothing_to_do(capsys, empty_database: str) -> None:
    assert run(capsys, "--ledger", empty_database, "migrate", "--check")[0] == 1
    assert run(capsys, "--ledger", empty_database, "migrate")[:2] == (0, "applied: ledger")
    assert run(capsys, "--ledger", empty_database, "migrate")[0] == 0
    assert run(capsys, "--ledger", empty_database, "migrate", "--check")[:2] == (
        0,
        "the ledger is up to date",
    )


def test_orders_say_what_changed_and_who_gave_them(capsys, monkeypatch, ledger_database: str) -> None:
    monkeypatch.setenv("LIFECYCLE_LEDGER_DSN", ledger_database)
    assert run(capsys, "suppress", "--user", "42", "--reason", "asked")[:2] == (0, "suppressed")
    assert (
        run(capsys, "suppress", "--user", "42", "--reason", "asked")[1]
        == "was suppressed before; nothing changed"
    )
    assert run(capsys, "unsuppress", "--user", "42", "--reason", "asked again")[1] == "suppression lifted"
    assert (
        run(capsys, "halt", "--campaign", "day4_follow_up", "--reason", "template")[1] == "sending is halted"
    )
    assert run(capsys, "resume", "--reason", "x")[1] == "there was no such halt; nothing changed"
    with connect(ledger_database) as ledger:
        [(by,)] = ledger.execute("SELECT suppressed_by FROM lifecycle.suppressions").fetchall()
    assert by.startswith("postgres (command, ")


def test_unreachable_ledger_and_bad_address_are_one_clear_line(capsys, ledger_database: str) -> None:
    status, _, said = run(capsys, "--ledger", "postgresql://127.0.0.1:1/x", "halt", "--reason", "x")
    assert status == 1
    assert said.startswith("lifecycle: the ledger's database cannot be reached; nothing was changed.")
    assert "\n" not in said
    status, _, said = run(
        capsys, "--ledger", ledger_database, "suppress", "--address", "nobody at all", "--reason", "x"
    )
    assert (status, "\n" in said, "nobody" in said) == (1, False, False)


def test_validate_names_every_mistake(capsys, tmp_path: Path) -> None:
    include = IncludeFolder(tmp_path)
    assert run(capsys, "validate", "--include", str(include.path))[0] == 0
    include.write_campaign(schedule="hourly")
    include.write("templates/day4_follow_up/subject.txt.j2", "{% if %}")
    status, _, said = run(capsys, "validate", "--include", str(include.path))
    assert status == 1
    assert "schedule" in said
    assert "subject.txt.j2" in said


def test_command_runs_as_a_module_and_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle_emails", "--help"],
        cwd=ROOT / "plugins",
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("migrate", "validate", "suppress", "unsuppress", "halt", "resume"):
        assert command in done.stdout


@pytest.mark.parametrize("command", [["migrate"], ["halt", "--reason", "x"]])
def test_connection_string_that_cannot_be_read_is_one_line_without_its_secret(
    capsys, command: list[str]
) -> None:
    status, _, said = run(capsys, "--ledger", "postgresql://u:hun%ter2@localhost/db", *command)
    assert (status, "\n" in said, "hun" in said) == (1, False, False)
    assert "connection string cannot be read" in said


def test_validate_reads_the_audience(capsys, tmp_path: Path) -> None:
    include = IncludeFolder(tmp_path)
    audience = include.path / "audiences" / "users.sql"
    audience.write_text(audience.read_text() + "; DROP TABLE users")
    status, _, said = run(capsys, "validate", "--include", str(include.path))
    assert (status, "second statement" in said) == (1, True)


@pytest.mark.parametrize("order", [["halt"], ["suppress", "--user", "42"]])
def test_order_for_a_mistyped_campaign_is_refused(capsys, ledger_database: str, order: list[str]) -> None:
    arguments = ("--ledger", ledger_database, *order, "--campaign", "day4_folow_up", "--reason", "template")
    status, _, said = run(capsys, *arguments)
    assert status == 1
    assert "there is no campaign day4_folow_up; nothing was changed" in said
    with connect(ledger_database) as ledger:
        assert ledger.execute("SELECT count(*) FROM lifecycle.halts").fetchone() == (0,)
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (0,)
