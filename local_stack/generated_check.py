"""Whether the generated files in the repository are what their generators make today.

``python -m local_stack.generated_check`` prints how they differ and exits with 1 when one does. A generator
is a function that gives the text of one file; a new one gets a line in ``GENERATED``.
"""

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from lifecycle_emails import throttle
from lifecycle_emails.campaign_schema import SCHEMA_FILE, campaign_schema

PROJECT = Path(__file__).resolve().parent.parent
GENERATED: dict[str, tuple[Callable[[], str], str]] = {
    f"include/{SCHEMA_FILE}": (campaign_schema, "python -m lifecycle_emails.campaign_schema include"),
    f"include/{throttle.SCHEMA_FILE}": (
        throttle.throttles_schema,
        "python -m lifecycle_emails.throttle include",
    ),
}


def differences(folder: Path) -> list[str]:
    """Give a diff, and the command that mends it, for every generated file of a folder not in step."""
    found = []
    for name, (generate, command) in GENERATED.items():
        file = folder / name
        kept = file.read_text(encoding="utf-8") if file.exists() else ""
        made = generate()
        if kept != made:
            lines = difflib.unified_diff(
                kept.splitlines(), made.splitlines(), name, "generated", n=1, lineterm=""
            )
            found.append("\n".join([*lines, f"{name} is not in step. Run: {command}"]))
    return found


def main() -> int:
    """Print the differences of this project; return the exit code."""
    found = differences(PROJECT)
    for difference in found:
        print(difference, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
