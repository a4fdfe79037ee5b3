import json
from pathlib import Path

import pytest

from bench import storage

FIGURES = {
    *(f"{step}_seconds" for step in storage.STEPS),
    "load_first_month_seconds", "load_last_month_seconds", "gate_users_per_second", "hot_percent",
    "bytes", "bytes_after_cohorts", "bytes_after_retention",
}  # fmt: skip


def test_storage_comparison_ends_with_one_json_object_and_leaves_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    sizes = ["--rows", "1460", "--repetitions", "1", "--group", "8"]

    assert storage.main([*sizes, "--folder", str(tmp_path), "--json", str(file)]) == 0

    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads(file.read_text())
    assert figures.keys() == {
        "rows", "cohorts", "cohort_users", "group", "repetitions", "machine", "whole_table_scans", "seconds",
        *storage.NAMES,
    }  # fmt: skip
    assert (figures["rows"], figures["cohort_users"]) == (1460, 14)
    for name in storage.NAMES:
        assert figures[name].keys() == FIGURES
        assert all(figures[name][f"{step}_seconds"] > 0 for step in storage.STEPS)
    assert figures["unpartitioned"]["bytes"]["keys"] == 0 < figures["partitioned"]["bytes"]["keys"]
    assert list(tmp_path.iterdir()) == [file]
