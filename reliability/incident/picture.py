"""The picture of the replay: copies per user, the old way above the new one, as SVG."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

WIDTH = 880
LEFT, RIGHT = 60, 20
PANEL_HEIGHT = 190
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """One user's copies, in the picture's units; y grows downwards from the panel's top."""

    x: float
    y: float
    height: float
    user_id: str
    copies: int


@dataclass(frozen=True)
class Panel:
    """One way of sending: its title, its bars, and where it stands."""

    title: str
    colour: str
    top: int
    bars: tuple[Bar, ...]


def draw(old: Mapping[str, int], new: Mapping[str, int], *, title: str) -> str:
    """Return the picture of copies by user id as SVG; both panels have the same scale."""
    users = sorted({*old, *new}, key=lambda user_id: (len(user_id), user_id))
    highest = max([*old.values(), *new.values(), 1])
    step = (WIDTH - LEFT - RIGHT) / max(len(users), 1)
    panels = (
        _panel("A Celery task with an ETA of 96 hours", "#c0392b", 70, old, users, highest),
        _panel("This package, on the same Redis", "#1e8449", 320, new, users, highest),
    )
    return _TEMPLATES.get_template("picture.svg.j2").render(
        title=title, panels=panels, width=WIDTH, left=LEFT, right=WIDTH - RIGHT, panel_height=PANEL_HEIGHT,
        highest=highest, bar_width=round(step * 0.7, 2), users=len(users),
    )  # fmt: skip


def _panel(
    title: str, colour: str, top: int, copies: Mapping[str, int], users: list[str], highest: int
) -> Panel:
    step = (WIDTH - LEFT - RIGHT) / max(len(users), 1)
    bars = []
    for number, user_id in enumerate(users):
        count = copies.get(user_id, 0)
        height = round(PANEL_HEIGHT * count / highest, 2)
        x = round(LEFT + step * (number + 0.15), 2)
        bars.append(Bar(x, round(PANEL_HEIGHT - height, 2), height, user_id, count))
    most, fewest = max((b.copies for b in bars), default=0), min((b.copies for b in bars), default=0)
    range_ = f"{most}" if most == fewest else f"{fewest} to {most}"
    return Panel(f"{title}: {range_} {'copy' if most == 1 else 'copies'} each", colour, top, tuple(bars))
