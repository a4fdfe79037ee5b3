"""Draws rates as bars, as SVG: one panel for each table, all on one scale that begins at nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

from bench.contest import Contestant

_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD = 880, 320, 150, 26, 40
_OWN, _OTHERS = "#1e8449", "#7f8c8d"


def draw(panels: Mapping[str, Sequence[Contestant]], *, own: str, title: str) -> str:
    """The picture: ``panels`` by title; names that contain ``own`` are drawn in another colour.

    A bar is as long as the median; the thin line at its end goes from the lowest to the highest rate.
    """
    highest = max(run.rate for panel in panels.values() for one in panel for run in one.runs)

    def place(rate: float) -> float:
        return round(_LEFT + rate / highest * (_WIDTH - _LEFT - _RIGHT), 1)

    parts, top = [f'<text x="20" y="30" font-size="18">{escape(title)}</text>'], 60
    for name, contestants in panels.items():
        parts.append(f'<text x="20" y="{top + 14}" font-weight="bold">{escape(name)}</text>')
        top += _HEAD - 16
        for one in contestants:
            parts += _bar(one, top, place, _OWN if own in one.name else _OTHERS)
            top += _ROW
        top += 20
    parts.append(
        f'<text x="20" y="{top}" fill="#555555">Mails per second: median, and lowest to highest</text>'
    )
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 20}" font-family="sans-serif" '
        f'font-size="14" role="img">\n  <title>{escape(title)}</title>\n'
        f'  <rect width="{_WIDTH}" height="{top + 20}" fill="#ffffff"/>\n  {body}\n</svg>\n'
    )


def _bar(one: Contestant, top: int, place: Callable[[float], float], colour: str) -> list[str]:
    low, high = one.spread
    end, middle = place(one.rate), top + 10
    return [
        f'<text x="{_LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(one.name)}</text>',
        f'<rect x="{_LEFT}" y="{top + 2}" width="{round(end - _LEFT, 1)}" height="17" fill="{colour}"/>',
        f'<line x1="{place(low)}" x2="{place(high)}" y1="{middle}" y2="{middle}" stroke="#000000"/>',
        f'<text x="{place(high) + 8}" y="{top + 15}" fill="#222222">{_rate(one.rate)}</text>',
    ]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
