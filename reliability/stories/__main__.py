"""``make stories``: play the runbook on a real Airflow, and say whether its words are true.

Each story has a campaign of its own: users, ledger, mail server, DAG. What a person does in it is done
through Airflow's API, its UI in a real browser, or the ``lifecycle`` command. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time

from local_stack.interruption import sigterm_interrupts
from reliability.fault_bench.airflow_stack import airflow_stack, stop_airflow_stacks
from reliability.fault_bench.bench import PORTS_OF_A_PLAY, Place, bench_place
from reliability.fault_bench.fault import Setting
from reliability.stories import of_analysts, of_approval, of_halting, of_operators, of_support
from reliability.stories.people import LOGINS
from reliability.stories.story import Story, Told

STORIES = (
    *of_operators.STORIES,
    *of_support.STORIES,
    *of_analysts.STORIES,
    *of_approval.STORIES,
    *of_halting.STORIES,
)
FIGURES = (
    "backfill_accepted", "extended_before", "extended_after", "extended_expected", "dry_run_rows",
    "dry_run_rows_changed", "halt_seconds", "resumed_copies", "breaker_held", "unauthorised_tried",
    "unauthorised_refused",
)  # fmt: skip
"""What is counted beside the stories of the runbook."""


def main() -> int:
    """Play; exit status 0 when every story ended as the runbook says."""
    parser = argparse.ArgumentParser(prog="reliability.stories", description=__doc__)
    parser.add_argument("--only", default="", help="only stories with these words in their title or anchor")
    options = parser.parse_args()
    wanted = [story for story in STORIES if options.only in f"{story.title} {story.anchor}"]
    if not wanted:
        parser.error(f"no story has {options.only!r} in it")
    began, told = time.monotonic(), dict[str, Told]()
    with bench_place(thorough=False) as place:
        try:
            airflow_stack(place.server, changes=LOGINS)  # the one that all stories share
            for number, story in enumerate(wanted):
                told[story.title] = _play(place, number, story)
        finally:
            stop_airflow_stacks()
    return _report(wanted, told, time.monotonic() - began)


def _play(place: Place, number: int, story: Story) -> Told:
    folder = place.folder / f"story_{number}"
    folder.mkdir()
    folder.chmod(0o711)
    print(f"... {story.title}", flush=True)
    began = time.monotonic()
    try:
        told = story.play(Setting(folder, PORTS_OF_A_PLAY, place.server, place.original))
    except Exception as error:  # noqa: BLE001  (the other stories are still worth telling)
        told = Told([f"{type(error).__name__}: {error}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    verdict = "as the runbook says" if not told.problems else "NOT as the runbook says"
    print(f"    {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    for problem in told.problems:
        print(f"    - {problem}", flush=True)
    return told


def _report(stories: list[Story], told: dict[str, Told], seconds: float) -> int:
    of_runbook = {story.title for story in stories if story.anchor}
    figures = {name: value for one in told.values() for name, value in one.figures.items()}
    line = {
        "stories": len(of_runbook),
        "stories_passed": sum(not told[title].problems for title in of_runbook),
        **{name: figures.get(name) for name in FIGURES},
        "seconds": round(seconds, 1),
    }
    print(json.dumps(line))
    return 0 if not any(one.problems for one in told.values()) else 1


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
