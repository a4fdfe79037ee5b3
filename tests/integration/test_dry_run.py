"""``lifecycle dry-run``: everybody of every cohort by name, and nothing that a real run reads is changed."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle_emails.cli import main
from lifecycle_emails.ledger.orders import suppress
from tests.daily_run import DailyRun, today

YESTERDAY = today() - timedelta(days=1)
ONE_A_WEEK = "default:\n  one_per_week:\n    max_sends: 1\n    window: 7 days\n"


def everything(ledger: psycopg.Connection[Any]) -> dict[str, tuple[Any, ...] | None]:
    """Count and hash of every table of the ledger."""
    tables = ledger.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'lifecycle' AND table_type = 'BASE TABLE'"
    ).fetchall()
    return {
        table: ledger.execute(
            f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM lifecycle.{table} AS t"
        ).fetchone()
        for (table,) in tables
    }


class DryRuns:
    """The command, on the databases of a daily run."""

    def __init__(self, run: DailyRun, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        self.run = run
        self.capsys = capsys
        self.csv = root / "report.csv"

    def __call__(self, *arguments: str, first: date = YESTERDAY, last: date | None = None) -> str:
        """Over a range of cohorts; returns what it says."""
        dates = ("--cohort-from", first.isoformat(), "--cohort-to", (last or today()).isoformat())
        return self.ask("welcome", *dates, *arguments)[1]

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        """As typed: exit status, output, errors."""
        run = self.run
        databases = ("--source", run.source_url, "--include", str(run.include.path))
        status = main(["--ledger", run.ledger_url, "dry-run", *arguments, *databases])
        said = self.capsys.readouterr()
        return status, said.out.strip(), said.err.strip()

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        """The rows of the CSV file."""
        self(*arguments, "--csv", str(self.csv))
        with self.csv.open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def dry_runs(daily_run: DailyRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> DryRuns:
    return DryRuns(daily_run, capsys, tmp_path)


def test_dry_run_names_everybody_with_outcome_and_both_dates(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.add_users(1, 2, day=YESTERDAY)
    run.send(run.plan(YESTERDAY))
    run.add_users(3, 4)
    run.add_users(5, email="nobody")
    run.add_users(6, day=today() - timedelta(days=9))
    suppress(run.ledger, user_id="4", reason="asked")

    old = dry_runs.rows("--cohort-from", (today() - timedelta(days=9)).isoformat())

    outcomes = {row["user_id"]: row["outcome"] for row in old}
    assert outcomes == {
        "1": "already_sent", "2": "already_sent", "3": "would_be_sent", "4": "suppressed",
        "5": "invalid_address", "6": "stale",
    }  # fmt: skip
    [three] = [row for row in old if row["user_id"] == "3"]
    run_day = today() + timedelta(days=4)
    assert three == {
        "campaign": "welcome", "cohort_date": today().isoformat(), "user_id": "3",
        "logical_date": f"{run_day}T06:00:00+00:00", "outcome": "would_be_sent", "reason": "",
    }  # fmt: skip


def test_dry_run_changes_nothing(dry_runs: DryRuns, smtp_server) -> None:
    run = dry_runs.run
    run.include.write("frequency_caps.yaml", ONE_A_WEEK)
    run.add_users(*range(1, 6), day=YESTERDAY)
    run.plan(YESTERDAY)
    suppress(run.ledger, user_id="7", reason="asked")
    run.add_users(*range(6, 20))
    before = everything(run.ledger)

    assert len(dry_runs.rows()) == 19

    assert everything(run.ledger) == before
    assert smtp_server.accepted == []


def test_template_that_fails_for_one_user_is_found(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.add_users(*range(1, 700))
    run.add_users(700, full_name="")
    run.include.write("templates/welcome/subject.txt.j2", "Hello {{ full_name[0] }}")

    failed = [row for row in dry_runs.rows() if row["outcome"] == "render_failed"]

    assert [row["user_id"] for row in failed] == ["700"]
    assert "subject.txt.j2" in failed[0]["reason"]
    assert run.states() == {}


def test_slot_taken_by_an_earlier_date_of_the_range_is_found_taken(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.include.write("frequency_caps.yaml", ONE_A_WEEK)
    run.include.write(
        "campaigns/second.yaml",
        run.include.path.joinpath("campaigns/welcome.yaml")
        .read_text()
        .replace("id: welcome", "id: second\ntemplate: welcome")
        .replace("offset_days: 4", "offset_days: 5"),
    )
    run.add_users(1, 2, day=YESTERDAY)
    logical = ((today() + timedelta(days=days)).isoformat() for days in (3, 4))
    dates = ("--logical-from", next(logical), "--logical-to", next(logical))

    status, said, _ = dry_runs.ask("welcome", "second", *dates, "--json")

    assert status == 0
    told = json.loads(said)
    by_run = {
        (cohort["campaign"], cohort["logical_date"][:10]): cohort["outcomes"] for cohort in told["cohorts"]
    }
    assert by_run["welcome", (today() + timedelta(days=3)).isoformat()] == {"would_be_sent": 2}
    assert by_run["second", (today() + timedelta(days=4)).isoformat()] == {"capped": 2}
    assert run.states() == {}


def test_dry_run_and_the_run_after_it_say_the_same(dry_runs: DryRuns, smtp_server) -> None:
    run = dry_runs.run
    run.include.write_campaign(max_sends_per_day=6)
    run.add_users(*range(1, 11))
    suppress(run.ledger, user_id="4", reason="asked")
    told = Counter(row["outcome"] for row in dry_runs.rows())
    status, _, _ = dry_runs.ask(
        "welcome", "--cohort-from", today().isoformat(), "--cohort-to", today().isoformat()
    )
    assert status == 0
    assert told == {"would_be_sent": 6, "daily_limit": 3, "suppressed": 1}


def test_table_names_users_and_says_that_nothing_was_kept(dry_runs: DryRuns) -> None:
    dry_runs.run.add_users(*range(1, 31))
    said = dry_runs()
    assert "would_be_sent" in said.splitlines()[0]
    assert f"welcome, cohort {today()}, would_be_sent: 1, 10, 11," in said
    assert "and 10 more" in said
    assert said.endswith("This was a dry run: nothing was kept, nothing was sent.")
    assert YESTERDAY.isoformat() in said, "a cohort without users has its line too"


TOMORROW = datetime.now(UTC).date() + timedelta(days=1)


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        (("--cohort-from", "2026-05-31", "--cohort-to", "2026-05-01"), "is later than"),
        (("--cohort-from", "2024-05-31", "--cohort-to", "2026-05-01"), "more than 366 days"),
        (("--cohort-from", "2026-05-31"), "together"),
        ((), "give --cohort-from and --cohort-to, or"),
        (("--logical-from", TOMORROW.isoformat(), "--logical-to", TOMORROW.isoformat()), "in the future"),
    ],
)
def test_range_that_makes_no_sense_is_one_clear_message(
    dry_runs: DryRuns, dates: tuple[str, ...], words: str
) -> None:
    status, said, refused = dry_runs.ask("welcome", *dates)
    assert (status, said) == (1, "")
    assert words in refused
    assert "othing was changed" in refused


@pytest.mark.parametrize("kind", ["cohort", "logical"])
@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "3000-01-01", "9999-12-31"])
def test_date_out_of_reach_is_one_clear_message(dry_runs: DryRuns, kind: str, day: str) -> None:
    with pytest.raises(SystemExit) as usage:
        dry_runs.ask("welcome", f"--{kind}-from", day, f"--{kind}-to", day)
    assert usage.value.code == 2
    assert f"{day}: write a date from 1970-01-01 to 2999-12-31" in dry_runs.capsys.readouterr().err


@pytest.mark.parametrize("kind", ["cohort", "logical"])
@pytest.mark.parametrize("day", ["1970-01-01", "2999-12-31"])
def test_first_and_last_date_are_reckoned_with(dry_runs: DryRuns, kind: str, day: str) -> None:
    status, _, refused = dry_runs.ask("welcome", f"--{kind}-from", day, f"--{kind}-to", day)
    assert (status, refused == "" or "in the future" in refused) == (int(day > "2000"), True)


def test_unknown_campaign_and_unreachable_source_are_one_clear_message(dry_runs: DryRuns) -> None:
    day = today().isoformat()
    status, _, refused = dry_runs.ask("welcom", "--cohort-from", day, "--cohort-to", day)
    assert (status, "welcom" in refused, "Traceback" in refused) == (1, True, False)
    dry_runs.run.source_url = "postgresql://127.0.0.1:1/x"
    status, _, refused = dry_runs.ask("welcome", "--cohort-from", day, "--cohort-to", day)
    assert (status, "cannot be reached; nothing was changed" in refused) == (1, True)


def test_memory_does_not_grow_with_the_cohort(dry_runs: DryRuns) -> None:
    def peak() -> int:
        tracemalloc.start()
        dry_runs()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    dry_runs.run.include.write_campaign(volume=False)
    copy = (
        "INSERT INTO users (user_id, email, full_name, created_at)"
        " SELECT n, format('user%%s@example.com', n), 'Ada Example', %s FROM generate_series(%s::int, %s::int) AS n"
    )
    noon = datetime.combine(today(), datetime.min.time(), UTC) + timedelta(hours=12)
    dry_runs.run.source.execute(copy, (noon, 1, 3000))
    peak()
    small = peak()
    dry_runs.run.source.execute(copy, (noon, 3001, 12000))
    # planning keeps a chunk of arrivals, which is longer than this cohort; rows of the report would weigh more
    assert peak() < small + 2_000_000


def test_deferred_user_is_told_when(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.add_users(1)
    run.plan()
    run.ledger.execute("UPDATE lifecycle.sends SET not_before = now() + interval '5 minutes'")
    [row] = dry_runs.rows()
    assert (row["outcome"], row["reason"].startswith("not before 2")) == ("would_be_sent", True)


def test_dry_run_holds_back_a_cohort_of_unusual_size_as_its_run_would(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.include.write_campaign(volume={"without_history": 3})
    run.add_users(1, 2, 3, day=YESTERDAY)
    run.add_users(11, 12, 13, 14)
    outcomes = Counter((row["cohort_date"], row["outcome"]) for row in dry_runs.rows())
    assert outcomes == {
        (YESTERDAY.isoformat(), "would_be_sent"): 3,
        (today().isoformat(), "awaiting_approval"): 4,
    }


def test_dry_run_asks_how_fresh_the_source_is(dry_runs: DryRuns) -> None:
    run = dry_runs.run
    run.include.write_campaign(volume={"freshness": "fresh.sql"})
    run.include.write("audiences/fresh.sql", f"SELECT timestamptz '{today()} 00:00 UTC'")
    run.add_users(1, day=YESTERDAY)
    run.add_users(2)
    outcomes = {row["user_id"]: row["outcome"] for row in dry_runs.rows()}
    assert outcomes == {"1": "would_be_sent", "2": "awaiting_approval"}
