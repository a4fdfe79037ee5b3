from xml.etree import ElementTree as ET

from bench.chart import draw
from bench.contest import Contestant, Run, named, ratio, table


def contestant(name: str, *seconds: float) -> Contestant:
    return Contestant(name, lambda: Run(1, 1), [Run(100, taken) for taken in seconds])


def test_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    one, other = contestant("sender", 1, 20, 4), contestant("smtp-source", 0.5, 10, 1)

    assert ratio(one, other) == 0.5
    assert ratio(None, other) is ratio(one, None) is None
    assert named([one, other], "smtp-source") is other
    assert named([one, other], "smtplib") is None


def test_table_shows_median_spread_and_share() -> None:
    shown = table([contestant("sender", 1, 2, 4), contestant("smtp-source", 0.5, 1, 2)], "smtp-source")

    row = shown.splitlines()[1].split()
    assert row[:5] == ["sender", "50.0", "25.0-100.0", "0.5000", "-"]


def test_picture_has_a_bar_for_each_contestant_as_long_as_its_rate() -> None:
    panels = {"In <clear>": [contestant("slow", 100), contestant("sender", 10), contestant("fast", 1)]}

    root = ET.fromstring(draw(panels, own="sender", title="Mails & seconds"))  # noqa: S314  (our own)

    svg = "{http://www.w3.org/2000/svg}"
    _, slow, sender, fast = root.findall(f"{svg}rect")
    lengths = [float(bar.get("width", "")) for bar in (slow, sender, fast)]
    assert lengths == [lengths[2] / 100, lengths[2] / 10, lengths[2]]
    assert slow.get("fill") == fast.get("fill") != sender.get("fill")
    assert {"Mails & seconds", "In <clear>", "sender"} <= {text.text for text in root.findall(f"{svg}text")}


def test_picture_writes_rates_as_people_do() -> None:
    panels = {"": [contestant("many", 100 / 20_490), contestant("few", 100 / 1.796)]}

    root = ET.fromstring(draw(panels, own="few", title=""))  # noqa: S314  (our own)

    assert {"20,490", "1.8"} <= {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
