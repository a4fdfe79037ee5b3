"""What `make incident` says of its figures, and what it draws. The replay itself is `make incident`."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from reliability.incident.figures import Figures
from reliability.incident.new_way import CONNECTIONS, NewWay
from reliability.incident.old_way import OldWay
from reliability.incident.picture import PANEL_HEIGHT, draw
from reliability.worker_log import Deliveries, read_deliveries

SVG = "{http://www.w3.org/2000/svg}"
GOOD = Figures(
    users=3,
    old={"1": 70, "2": 68, "3": 71},
    new={"1": 1, "2": 1, "3": 1},
    old_redelivered=206,
    new_redelivered=9,
    refused_by_airflow=8,
    send_tasks_started=12,
    tasks_killed=2,
    tasks_cleared=1,
    in_doubt=2 * CONNECTIONS,
    unfinished=0,
    run_state="failed",
    seconds=200.0,
)


def test_figures_are_taken_from_what_came_of_both_ways() -> None:
    old = OldWay({"1": 2, "2": 3}, Deliveries(Counter({"a": 2, "b": 3}), Counter(), 0))
    new = NewWay(
        copies={"1": 1, "2": 1},
        states={"sent": 1, "in_doubt": 1},
        deliveries=Deliveries(Counter({"a": 4}), Counter({"send_batch": 5}), 2),
        tasks_killed=1,
        tasks_cleared=1,
        run_state="failed",
    )
    figures = Figures.of(2, old, new)
    assert (figures.old_redelivered, figures.new_redelivered, figures.refused_by_airflow) == (3, 3, 2)
    assert (figures.in_doubt, figures.unfinished, figures.send_tasks_started) == (1, 0, 5)
    assert figures.broken_promises() == []
    assert figures.as_json() == {
        "legacy_max_copies": 3,
        "pipeline_max_copies": 1,
        "users": 2,
        "in_doubt": 1,
        "seconds": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"old": {"1": 1, "2": 1, "3": 1}}, "the old way sends copies"),
        ({"new": {"1": 1, "2": 2, "3": 1}}, "nobody a second copy"),
        ({"new": {"1": 1, "2": 1}}, "everybody the mail"),
        ({"unfinished": 1}, "sent or in doubt"),
        ({"in_doubt": 3 * CONNECTIONS + 1}, f"at most {3 * CONNECTIONS} users are in doubt"),
        ({"old_redelivered": 0}, "redelivered to the old way"),
        ({"new_redelivered": 0}, "redelivered to Airflow"),
        ({"tasks_killed": 0, "in_doubt": 0, "run_state": "success"}, "killed in mid-send"),
        ({"run_state": "success"}, "is red exactly when"),
        ({"in_doubt": 0}, "is red exactly when"),
    ],
)
def test_every_promise_can_be_broken(changes: dict[str, object], broken: str) -> None:
    assert GOOD.broken_promises() == []
    [said] = replace(GOOD, **changes).broken_promises()  # type: ignore[arg-type]
    assert broken in said


def test_nothing_sent_is_no_success() -> None:
    figures = replace(GOOD, new={}, old={})
    assert (figures.legacy_max_copies, figures.pipeline_max_copies) == (0, 0)
    assert len(figures.broken_promises()) == 3


def test_table_shows_both_ways_side_by_side() -> None:
    rows = [re.split(r"\s{2,}", line.strip()) for line in GOOD.table().splitlines()]
    assert rows[0] == ["scheduled Celery task", "this package on CeleryExecutor"]
    assert ["most copies to one user", "71", "1"] in rows
    assert ["tasks the broker delivered again", "206", "9"] in rows
    assert len({len(line) for line in GOOD.table().splitlines()}) == 1


def test_picture_draws_every_user_in_both_panels_on_one_scale() -> None:
    picture = ET.fromstring(draw(GOOD.old, GOOD.new, title="Copies & users"))  # noqa: S314  (our own text)
    old, new = picture.findall(f"{SVG}g")
    heights = [[float(bar.attrib["height"]) for bar in panel.findall(f"{SVG}rect")] for panel in (old, new)]
    assert max(heights[0]) == PANEL_HEIGHT
    assert heights[0] == pytest.approx([PANEL_HEIGHT * copies / 71 for copies in (70, 68, 71)], abs=0.01)
    assert heights[1] == pytest.approx([PANEL_HEIGHT / 71] * 3, abs=0.01)
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "Copies & users" in texts
    assert "A Celery task with an ETA of 96 hours: 68 to 71 copies each" in texts
    assert "This package, on the same Redis: 1 copy each" in texts


def test_picture_shows_who_got_nothing() -> None:
    text = draw({"1": 2, "2": 2}, {"1": 1}, title="t")
    assert "<title>user 2: 0</title>" in text
    assert "0 to 1 copy each" in text


def test_deliveries_are_counted_over_the_logs_of_all_workers(tmp_path: Path) -> None:
    line = "2026-11-24T08:00:00Z [info     ]"
    started = (
        f"{line} [aa-1] Executing workload in Celery: log_path='dag_id=d/task_id=send_batch/map_index=1/x'"
    )
    (tmp_path / "one").write_text(
        f"{line} Task execute_workload[aa-1] received [celery]\n{started}\n"
        f"{line} Task execute_workload[bb-2] received [celery]\n"
    )
    (tmp_path / "two").write_text(
        f"{line} Task execute_workload[aa-1] received [celery]\n{started}\n"
        f"{line} [aa-1] Task already running elsewhere, ignoring redelivered message [airflow]\n"
    )
    deliveries = read_deliveries([tmp_path / "one", tmp_path / "two"])
    assert deliveries.received == {"aa-1": 2, "bb-2": 1}
    assert (deliveries.redelivered, deliveries.refused) == (1, 1)
    assert deliveries.started == {"send_batch": 2}
