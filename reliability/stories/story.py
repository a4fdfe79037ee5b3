"""The frame of a story: what a person meets, the steps of the runbook, and whether they led where it says.

It knows campaigns of a real Airflow and the command line. Must not know what a single story is about.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from local_stack.airflow_api import Run
from reliability.fault_bench.airflow_campaign import AirflowCampaign
from reliability.fault_bench.fault import Setting

COMMAND_SECONDS = 120


@dataclass(frozen=True)
class Told:
    """How a story ended. Without problems, the runbook's words were true."""

    problems: Sequence[str]
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was counted, by the name that it has in the last line of the output."""


@dataclass(frozen=True)
class Story:
    """A part of somebody's day. ``anchor`` is its heading in docs/runbook.md; None: only measured."""

    title: str
    play: Callable[[Setting], Told]
    anchor: str | None = None


class Person:
    """Somebody with a terminal, who runs the ``lifecycle`` command against a campaign's ledger."""

    def __init__(self, campaign: AirflowCampaign) -> None:
        self._campaign = campaign
        self.problems: list[str] = []
        """What commands did that the runbook does not say."""

    def lifecycle(self, *words: str, refused: bool = False) -> str:
        """Run a command and return what it printed; note a problem when it ends otherwise than expected.

        :param refused: whether the runbook says that this is refused
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._campaign.setting.tree),
            "LIFECYCLE_LEDGER_DSN": self._campaign.ledger_url,
            "LIFECYCLE_SOURCE_DSN": self._campaign.source_url,
        }
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle_emails", *words],
            env=environment, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL, cwd=self._campaign.folder,
        )  # fmt: skip
        said = (done.stdout + done.stderr).strip()
        if (done.returncode != 0) is not refused:
            self.problems.append(f"lifecycle {words[0]} ended with {done.returncode}: {said[-300:]}")
        return said


def one_copy_each(campaign: AirflowCampaign, users: Iterable[str]) -> list[str]:
    """Say who of these users did not get exactly one mail, by the mail server's own record."""
    copies = campaign.copies()
    wrong = {user: copies[user] for user in users if copies[user] != 1}
    return (
        [f"{len(wrong)} users got other than one mail, for example {dict(list(wrong.items())[:3])}"]
        if wrong
        else []
    )


def says(log: str, *words: str) -> list[str]:
    """Say which of these words a log or an answer lacks."""
    lacking = [word for word in words if word not in log]
    return [f"nothing says {word!r}: ...{log[-200:]}" for word in lacking]


def log_of(campaign: AirflowCampaign, run: Run, task_id: str) -> str:
    """The log of a task's last try, as the UI shows it; of mapped tasks, all of them."""
    tasks = [task for task in campaign.api.tasks(run.dag_id, run.run_id) if task.task_id == task_id]
    return "\n".join(campaign.api.log(run.dag_id, run.run_id, task) for task in tasks)
