import json
from pathlib import Path

import pytest

from bench import planning


def test_planning_bench_plans_everybody_and_ends_with_one_json_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planning.main(["--size", "300", "--campaigns", "2", "--history", "4000", "--folder", str(tmp_path)])

    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["history"], one["size"]) for one in figures["planned"]] == [(0, 300), (4000, 300)] * 2
    for one in figures["planned"]:
        assert one["steps"].keys() == set(planning.STEPS)
        assert 0 < one["memory_mib"] < 1000
        assert all(one[name] > 0 for name in ("seconds", "seconds_per_million", "hot_percent"))
    assert figures["history_4000_known_users"]["cpu"] > 0
    assert figures["history_4000_newcomers"]["cpu"] > 0
    assert (figures["campaigns"]["campaigns"], figures["campaigns"]["size"]) == (2, 300)
    assert len(figures["campaigns"]["cpu_seconds_of_each"]) == 2
    assert (figures["parsing"]["dags"], figures["parsing"]["connections"]) == (2, 0)
    assert list(tmp_path.iterdir()) == []
