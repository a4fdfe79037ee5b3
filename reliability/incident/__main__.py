"""``make incident``: the incident replayed, the old way and with this package, on the same Redis.

Prints both ways side by side and draws docs/images/incident.svg. The last line is one JSON object. Exit
status 0 only when the old way sent copies and this package sent nobody a second one.
"""

import json
import sys
import time
from dataclasses import replace

from reliability.celery_run import run_on_celery
from reliability.celery_stack import CeleryStack
from reliability.compose import PROJECT
from reliability.incident import new_way
from reliability.incident.figures import Figures
from reliability.incident.old_way import OldApplication
from reliability.incident.picture import draw
from reliability.incident.scale import DELAY_SECONDS, USERS, VISIBILITY_TIMEOUT_SECONDS

PICTURE = PROJECT / "docs" / "images" / "incident.svg"
TITLE = "The incident, replayed: copies of one mail per user"


def main() -> int:
    """Run the replay; return the exit code."""
    return run_on_celery("incident", _play, new_way.CHANGES)


def _play(stack: CeleryStack) -> int:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    stack.start_servers(answer_after=new_way.ANSWER_AFTER)
    old_application = OldApplication(stack)
    old_application.start()
    say(
        f"the old way: {USERS} mails are scheduled for {DELAY_SECONDS} s from now, on a Redis with a "
        f"visibility timeout of {VISIBILITY_TIMEOUT_SECONDS} s (an hour of the incident is a second)"
    )
    new_way.prepare(stack)
    stack.finish(say)
    say("this package: the scheduler runs the day of the same users, while the old mails wait for their time")
    new = new_way.play(stack, say)
    old = old_application.wait(say)
    figures = replace(Figures.of(USERS, old, new), seconds=round(time.monotonic() - started, 1))
    print(f"\n{figures.table()}\n")
    broken = figures.broken_promises()
    for promise in broken:
        print(f"BROKEN: {promise}")
    if not broken:
        PICTURE.write_text(draw(old.copies, new.copies, title=TITLE), encoding="utf-8")
        print(f"Copies per user, old and new: {PICTURE.relative_to(PROJECT)}")
    print(json.dumps(figures.as_json()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
