"""The metrics of the lifecycle e-mail DAGs, emitted through Airflow's own stats: StatsD or OpenTelemetry.

Whatever Airflow's ``[metrics]`` section says holds for these too; with metrics off, nothing is sent. Knows
names and numbers. Must not know where the numbers come from. docs/metrics.md says what each one means.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from airflow.sdk.observability import stats

Kind = Literal["counter", "gauge", "timer"]

METRICS: dict[str, Kind] = {
    "lifecycle.sent": "counter",
    "lifecycle.rejected": "counter",
    "lifecycle.in_doubt": "counter",
    "lifecycle.refused_for_now": "counter",
    "lifecycle.throttled": "counter",
    "lifecycle.capped": "counter",
    "lifecycle.held": "gauge",
    "lifecycle.gate.duration": "timer",
    "lifecycle.gate.slowest": "timer",
    "lifecycle.oldest_open_row": "gauge",
    "lifecycle.cohort.lateness": "gauge",
    "lifecycle.awaiting_approval": "gauge",
}
"""Every metric there is, by name."""


def count(name: str, number: int, **tags: str) -> None:
    """Add to a counter, of users if docs/metrics.md says nothing else; nothing is emitted for none."""
    _check(name, "counter")
    if number:
        stats.incr(name, number, tags=tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Say what a gauge shows now."""
    _check(name, "gauge")
    stats.gauge(name, value, tags=tags)


def gauge_by_reason(name: str, users: Mapping[str, int], **tags: str) -> None:
    """Say what a gauge shows now for each reason."""
    for reason, number in users.items():
        gauge(name, number, **tags, reason=reason)


def timing(name: str, seconds: float, **tags: str) -> None:
    """Add one length of time to a timer."""
    _check(name, "timer")
    stats.timing(name, timedelta(seconds=seconds), tags=tags)


def _check(name: str, kind: Kind) -> None:
    if METRICS.get(name) != kind:
        raise ValueError(f"{name} is no {kind} of METRICS; add it there and to docs/metrics.md")
