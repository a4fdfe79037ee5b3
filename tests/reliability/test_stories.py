"""The runbook and its stories belong together; what plays them is run by `make stories`."""

from __future__ import annotations

import re
import subprocess
import sys

from local_stack.settings import PROJECT
from reliability.stories.__main__ import FIGURES, STORIES


def headings() -> list[str]:
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
    return re.findall(r"^## ([\w-]+)$", text, re.MULTILINE)


def test_every_entry_of_the_runbook_is_played_and_every_story_has_its_entry() -> None:
    anchors = [story.anchor for story in STORIES if story.anchor is not None]
    assert sorted(anchors) == sorted(headings())


def test_stories_have_names_of_their_own() -> None:
    titles = [story.title for story in STORIES]
    assert len(set(titles)) == len(titles)
    assert len(set(FIGURES)) == len(FIGURES)


def test_a_part_that_no_story_has_is_refused_with_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reliability.stories", "--only", "no such story"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no story has 'no such story' in it" in done.stderr
