"""Notes how much memory a task has taken at most, in its own process when it has succeeded."""

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("memory")


def note_memory(context: Any) -> None:
    """Write the peak of the resident set, in KiB, to a file named after the task instance."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    ti = context["ti"]
    if peak is not None:
        (FOLDER / f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}").write_text(peak[1])
