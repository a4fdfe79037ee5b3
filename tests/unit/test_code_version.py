"""The code's version: that of the package, and a hash that changes with its files."""

import importlib.resources
import shutil
import tomllib
from pathlib import Path

import pytest

from lifecycle_emails import code_version as module
from lifecycle_emails.code_version import code_version

ROOT = Path(__file__).parents[2]


def test_code_version_begins_with_that_of_the_package() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert module.__version__ == stated
    assert code_version().startswith(f"{stated}+")


def test_code_version_is_the_same_for_the_same_files_and_another_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "lifecycle_emails"
    shutil.copytree(importlib.resources.files("lifecycle_emails"), copy)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "files", lambda _: copy)
    first = code_version.__wrapped__()
    assert first == code_version()
    (copy / "sql" / "queries" / "commit.sql").write_text("ROLLBACK")
    assert code_version.__wrapped__() != first
