"""``lifecycle preview``: one user's mail as files, and nothing sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle_emails.cli import main
from tests.daily_run import DailyRun

ROOT = Path(__file__).parents[2]


def arguments(run: DailyRun, user: str, *more: str) -> list[str]:
    databases = ("--source", run.source_url, "--include", str(run.include.path))
    return [
        "--ledger",
        "postgresql://127.0.0.1:1/nowhere",
        "preview",
        "welcome",
        "--user",
        user,
        *databases,
        *more,
    ]


def test_preview_writes_page_text_and_mail_and_prints_the_headers(
    daily_run: DailyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], smtp_server
) -> None:
    daily_run.add_users(42, full_name="Ada <b>Example</b>")
    folder = tmp_path / "mails"

    assert main(arguments(daily_run, "42", "--to", str(folder), "--no-open")) == 0

    said = capsys.readouterr().out
    assert "Subject: Hello Ada <b>Example</b>" in said
    assert "From: The team <hello@example.com>" in said
    assert "user42@example.com" not in said
    assert "Reference: welcome/42" in (folder / "welcome-42.txt").read_text()
    assert "&lt;b&gt;" in (folder / "welcome-42.html").read_text()
    assert b"To: user42@example.com" in (folder / "welcome-42.eml").read_bytes()
    assert smtp_server.accepted == []


def test_preview_opens_the_page_in_the_browser(daily_run: DailyRun, tmp_path: Path) -> None:
    daily_run.add_users(42)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(0o700)

    subprocess.run(
        [
            sys.executable,
            "-m",
            "lifecycle_emails",
            *arguments(daily_run, "42", "--to", str(tmp_path / "mails")),
        ],
        cwd=ROOT / "plugins",
        env={**os.environ, "BROWSER": f"{browser} %s"},
        check=True,
        capture_output=True,
    )

    assert (tmp_path / "opened").read_text().strip() == (tmp_path / "mails" / "welcome-42.html").as_uri()


def test_blank_user_is_refused(daily_run: DailyRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments(daily_run, " ", "--no-open"))
    assert "the user's id is blank" in capsys.readouterr().err


@pytest.mark.parametrize("user", ["99", "nobody"])
def test_unknown_user_is_one_clear_message(
    daily_run: DailyRun, capsys: pytest.CaptureFixture[str], user: str
) -> None:
    assert main(arguments(daily_run, user, "--no-open")) == 1
    said = capsys.readouterr().err
    assert said.startswith("lifecycle: ")
    assert said.count("\n") == 1
    assert user in said
