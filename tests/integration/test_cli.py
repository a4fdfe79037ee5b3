"""The lifecycle command as a person types it: what it prints, its exit status, what it changes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifecycle_emails.cli import main
from lifecycle_emails.ledger.evidence import doubts
from lifecycle_emails.ledger.migration import migrations
from lifecycle_emails.ledger.witness import watch, witness_of
from tests.factories import IncludeFolder
from tests.integration.ledger.rows import add_cohort, add_sends, connect, make_doubts, states

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out.strip(), said.err.strip()


def test_migrate_applies_then_says_there_is_nothing_to_do(capsys, empty_database: str) -> None:
    assert run(capsys, "--ledger", empty_database, "migrate", "--check")[0] == 1
    assert run(capsys, "--ledger", empty_database, "migrate")[:2] == (
        0,
        f"applied: {', '.join(migration.name for migration in migrations())}",
    )
    assert run(capsys, "--ledger", empty_database, "migrate")[0] == 0
    status, said, _ = run(capsys, "--ledger", empty_database, "migrate", "--check")
    assert (status, said.splitlines()[0]) == (0, "the ledger is up to date")
    assert "warning: there is no witness outside the ledger" in said


def test_orders_say_what_changed_and_who_gave_them(capsys, monkeypatch, ledger_database: str) -> None:
    monkeypatch.setenv("LIFECYCLE_LEDGER_DSN", ledger_database)
    assert run(capsys, "suppress", "--user", " 42 ", "--reason", "asked")[:2] == (
        0,
        "suppressed. No run has seen user 42",
    )
    assert (
        run(capsys, "suppress", "--user", "42", "--reason", "asked")[1]
        == "was suppressed before; nothing changed"
    )
    assert run(capsys, "unsuppress", "--user", "42", "--reason", "asked again")[1] == "suppression lifted"
    assert (
        run(capsys, "halt", "--campaign", "day4_follow_up", "--reason", "template")[1] == "sending is halted"
    )
    said = run(capsys, "resume", "--reason", "x")[1]
    assert said.startswith(
        "there was no such halt; nothing changed. Another halt still holds: day4_follow_up,"
    )
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


def test_validate_reads_the_throttles(capsys, tmp_path: Path) -> None:
    include = IncludeFolder(tmp_path)
    include.write("throttles.yaml", "lifecycle_smpt:\n  mails_per_second: 14\n")
    status, _, said = run(capsys, "validate", "--include", str(include.path))
    assert (status, "include/throttles.yaml: lifecycle_smpt: no campaign has this" in said) == (1, True)
    include.write("throttles.yaml", "lifecycle_smtp:\n  mails_per_second: -1\n")
    status, _, said = run(capsys, "validate", "welcome", "--include", str(include.path))
    assert (status, "line 2, lifecycle_smtp.mails_per_second" in said) == (1, True)
    include.write("throttles.yaml", "lifecycle_smtp:\n  mails_per_second: 14\n")
    assert run(capsys, "validate", "--include", str(include.path))[0] == 0


def test_validate_reads_the_daily_limit_of_all_campaigns_once(capsys, tmp_path: Path) -> None:
    include = IncludeFolder(tmp_path)
    include.write(
        "campaigns/second.yaml",
        include.path.joinpath("campaigns/welcome.yaml")
        .read_text()
        .replace("id: welcome", "id: second\ntemplate: welcome"),
    )
    include.write("lifecycle.yaml", "max_sends_per_day: 0\n")
    status, _, said = run(capsys, "validate", "--include", str(include.path))
    assert (status, said.count("lifecycle.yaml")) == (1, 1)


def test_command_runs_as_a_module_and_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle_emails", "--help"],
        cwd=ROOT / "plugins",
        capture_output=True,
        text=True,
        check=True,
    )
    for command in (
        "migrate",
        "validate",
        "suppress",
        "unsuppress",
        "halt",
        "resume",
        "settle",
        "restored",
        "extend",
        "release",
        "send-test",
        "actions",
    ):
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
    assert "there is no campaign day4_folow_up (known: " in said
    assert said.endswith("Nothing was changed")
    with connect(ledger_database) as ledger:
        assert ledger.execute("SELECT count(*) FROM lifecycle.halts").fetchone() == (0,)
        assert ledger.execute("SELECT count(*) FROM lifecycle.suppressions").fetchone() == (0,)


def test_settle_lists_then_settles_by_a_log_and_by_hand(capsys, ledger_database: str, tmp_path: Path) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1", "2", "3"])
        keys = {doubt.user_id: doubt.key for doubt in doubts(ledger)}
    settle = ("--ledger", ledger_database, "settle", "day4_follow_up")
    status, said, _ = run(capsys, *settle)
    assert (status, said.count("\n"), f"user 2, cohort 2026-05-01, Message-ID <{keys['2']}@" in said) == (
        0,
        2,
        True,
    )
    log = tmp_path / "mail.log"
    log.write_text(
        f"2026-05-05T06:00:00+00:00 mx1 postfix/cleanup[17]: 4QaBcD1z2y: message-id=<{keys['1']}@example.com>\n"
        "2026-05-05T06:00:01+00:00 mx1 postfix/qmgr[18]: 4QaBcD1z2y: from=<a@example.com>, size=9, nrcpt=1 (queue active)\n"
    )
    assert run(capsys, *settle, "--postfix-log", str(log))[1] == (
        "the log proves 1 sent, 0 bounced; 2 are still in doubt"
    )
    assert run(capsys, *settle, "--as", "sent", "--user", "2", "--reason", "asked")[1] == "1 settled as sent"
    again = run(capsys, *settle, "--as", "send-again", "--all", "--reason", "asked")[1]
    assert "1 settled: they are judged again by the next run" in again
    assert "cannot know whether the process that wrote their dots is dead" in again
    with connect(ledger_database) as ledger:
        assert states(ledger) == {"1": "sent", "2": "sent", "3": "planned"}
        events = ledger.execute(
            "SELECT actor FROM lifecycle.send_events WHERE from_state = 'in_doubt'"
        ).fetchall()
    assert all(actor.startswith("postgres (command, ") for (actor,) in events)


def test_settle_past_the_deadline_says_how_to_extend_it(capsys, ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"], age=timedelta(days=3))
    said = run(
        capsys,
        "--ledger",
        ledger_database,
        "settle",
        "day4_follow_up",
        "--as",
        "send-again",
        "--all",
        "--reason",
        "x",
    )[1]
    assert "lifecycle extend day4_follow_up --cohort-from 2026-05-01 --cohort-to 2026-05-01 --days N" in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["day4_folow_up"], 1, "there is no campaign day4_folow_up; nothing was changed"),
        (["day4_follow_up", "--as", "sent", "--all"], 1, "--as needs --reason"),
        (["day4_follow_up", "--as", "sent", "--reason", "x"], 1, "--as needs --reason, and one of"),
        (["day4_follow_up", "--all", "--reason", "x"], 1, "say --as sent or --as send-again"),
        (["day4_follow_up", "--as", "maybe", "--all", "--reason", "x"], 2, "'maybe' (choose from 'sent', 'send-again')"),
        (["day4_follow_up", "--cohort-from", "yesterday", "--cohort-to", "2026-05-02"], 2, "'yesterday' is no date"),
        (
            ["day4_follow_up", "--as", "sent", "--cohort-from", "2026-05-03", "--cohort-to", "2026-05-02", "--reason", "x"],
            1,
            "--cohort-from 2026-05-03 is later than --cohort-to 2026-05-02; nothing was changed",
        ),
        (["day4_follow_up", "--as", "sent", "--cohort-from", "2026-05-03", "--reason", "x"], 1, "together"),
        (["day4_follow_up", "--postfix-log", "nowhere.log"], 1, "nowhere.log cannot be read, so nothing was settled"),
        (["day4_follow_up", "--postfix-log", "x", "--log-timezone", "Mars"], 2, "'Mars' is no time zone"),
    ],
)  # fmt: skip
def test_mistaken_settle_is_one_clear_message_and_changes_nothing(
    capsys, ledger_database: str, arguments: list[str], status: int, message: str
) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        make_doubts(ledger, ["1"])
    try:
        found = main(["--ledger", ledger_database, "settle", *arguments])
    except SystemExit as usage:
        found = usage.code
    assert (found, message in capsys.readouterr().err) == (status, True)
    with connect(ledger_database) as ledger:
        assert states(ledger) == {"1": "in_doubt"}


def test_restored_releases_what_the_witness_found(
    capsys, monkeypatch, ledger_database: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIFECYCLE_WITNESS", str(tmp_path / "witness.json"))
    today = datetime.now(UTC).date()
    ledger_option = ("--ledger", ledger_database)
    with connect(ledger_database) as ledger:
        add_cohort(ledger, cohort_date=today - timedelta(days=4))
        add_sends(ledger, ["1"], cohort_date=today - timedelta(days=4), state="ready")
        watch(ledger, witness_of(str(tmp_path / "witness.json")))
        assert "warning" not in run(capsys, *ledger_option, "migrate", "--check")[1]
        halt = (*ledger_option, "halt", "--campaign", "day4_follow_up", "--reason", "template")
        assert run(capsys, *halt)[1] == "sending is halted"
        ledger.execute("DELETE FROM lifecycle.witness_marks")
        status, _, said = run(capsys, *ledger_option, "restored", "--nothing-lost", "--reason", "moved")
        assert (status, "something was lost; nothing was changed" in said) == (1, True)
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        status, said, _ = run(capsys, *ledger_option, "restored", "--since", since, "--reason", "backup")
        assert (status, "1 users may have been mailed in the time that is missing" in said) == (0, True)
        assert states(ledger) == {"1": "in_doubt"}
        assert "Another halt still holds: day4_follow_up, halted by " in said
        of_campaign = run(capsys, *ledger_option, "actions", "--campaign", "day4_follow_up")[1]
        assert ": restored since=" in of_campaign
        [(by, why)] = ledger.execute("SELECT released_by, release_reason FROM lifecycle.restores").fetchall()
        actions = ledger.execute(
            "SELECT actor, action, arguments, reason, result FROM lifecycle.actions WHERE action = 'restored'"
        ).fetchall()
    assert (by.startswith("postgres (command, "), why) == (True, "backup")
    assert actions == [(by, "restored", {"since": since}, "backup", "1 users are in doubt for it")]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--since", "yesterday"], 2, "'yesterday' is no time"),
        (["--since", "2026-05-01T06:00"], 2, "has no time zone"),
        (["--since", "2026-05-01"], 2, "write 2026-05-01T00:00+00:00"),
        (["--since", "2999-05-01T06:00+00:00"], 1, "is still to come; nothing was changed"),
        ([], 2, "--since"),
    ],
)
def test_mistaken_restored_is_one_clear_message_and_changes_nothing(
    capsys, ledger_database: str, arguments: list[str], status: int, message: str
) -> None:
    try:
        found = main(["--ledger", ledger_database, "restored", *arguments, "--reason", "x"])
    except SystemExit as usage:
        found = usage.code
    assert (found, message in capsys.readouterr().err) == (status, True)
    with connect(ledger_database) as ledger:
        assert ledger.execute("SELECT count(*) FROM lifecycle.restores").fetchone() == (0,)


def test_extend_names_whom_it_may_reach_before_it_does(capsys, ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1", "2"], state="held", held_reason="stale")
        before = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall()
        arguments = (
            "--ledger", ledger_database, "extend", "day4_follow_up", "--cohort-from", "2026-05-01", "--cohort-to",
            "2026-05-02", "--days", "2", "--reason", "the provider was down",
        )  # fmt: skip
        status, _, said = run(capsys, *arguments)
        assert (status, "2 users not mailed yet (2 of them stale now)" in said, "--yes" in said) == (
            1,
            True,
            True,
        )
        assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() == before
        status, said, _ = run(capsys, *arguments, "--yes")
        assert (status, said.startswith("extended: 1 cohort of day4_follow_up")) == (0, True)
        after = ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall()
        assert after > before
        status, _, said = run(capsys, *arguments, "--yes")
        assert (status, "--earlier-extensions 1" in said) == (1, True)
        assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() == after
        status, _, _ = run(capsys, *arguments, "--yes", "--earlier-extensions", "1")
        assert status == 0
        assert ledger.execute("SELECT not_after FROM lifecycle.cohorts").fetchall() > after


def test_release_takes_users_or_a_cohort_and_actions_list_who_did_it(capsys, ledger_database: str) -> None:
    with connect(ledger_database) as ledger:
        add_cohort(ledger)
        add_sends(ledger, ["1"], state="rejected")
    release = ("--ledger", ledger_database, "release", "day4_follow_up", "--reason", "works again")
    assert run(capsys, *release, "--user", "1")[:2] == (
        0,
        "1 released: they are judged again by the next run",
    )
    status, _, said = run(capsys, *release, "--cohort", "2026-05-01")
    assert (status, "nothing was changed" in said) == (1, True)
    status, said, _ = run(capsys, "--ledger", ledger_database, "actions")
    assert (status, said.count("\n")) == (0, 0)
    assert "postgres (command, " in said
    assert 'release campaign="day4_follow_up" user_ids=["1"] because: works again. Result: 1 released' in said
