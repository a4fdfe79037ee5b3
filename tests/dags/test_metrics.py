"""Metrics through Airflow's own stats, as a StatsD server sees them; dashboard, alert rules and docs name no others."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.maintain import MaintainOperator
from tests.dags.daily_dag import CAMPAIGN, DailyDag

ROOT = Path(__file__).parent.parent.parent
MONITORING = ROOT / "docs" / "monitoring"
RUNBOOK_ANCHORS = set(
    re.findall(r"^##+ ([\w-]+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
)  # fmt: skip


class StatsdServer:
    """A UDP socket, and what arrived there by name and tags."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def received(self) -> dict[str, str]:
        """Read what has arrived: the last value of each lifecycle metric; over loopback it is there once sent."""
        values = {}
        while True:
            try:
                datagram = self._socket.recv(65536).decode()
            except BlockingIOError:
                return values
            for line in datagram.splitlines():
                name, value = line.removeprefix("airflow.").split(":", 1)
                if name.startswith("lifecycle."):
                    values[name] = value

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsdServer]:
    server = StatsdServer()
    for name, value in (
        ("statsd_on", "True"), ("statsd_host", "127.0.0.1"), ("statsd_port", str(server.port)),
        ("statsd_influxdb_enabled", "True"),
    ):  # fmt: skip
        monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
    # DAG.test runs tasks in this process, which began with metrics off; a task process does this as it starts
    logger = get_stats_factory()()
    stats.initialize(factory=lambda: logger, export_legacy_names=False)
    yield server
    logger.statsd.close()
    monkeypatch.undo()
    stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
    server.close()


def test_daily_run_and_maintenance_are_seen_by_a_statsd_server(daily: DailyDag, statsd: StatsdServer) -> None:
    daily.add_users(1, 2, 3)
    suppress(daily.ledger, user_id="3", reason="asked for it")

    daily.run()
    MaintainOperator(task_id="maintain", include_dir=str(daily.project.include.path)).execute({})

    seen = statsd.received()
    of_campaign = f",campaign={CAMPAIGN}"
    assert seen[f"lifecycle.sent{of_campaign}"] == "2|c"
    assert seen[f"lifecycle.held{of_campaign},reason=suppressed"] == "1|g"
    assert seen[f"lifecycle.oldest_open_row{of_campaign}"] == "0.0|g"
    assert seen[f"lifecycle.awaiting_approval{of_campaign}"] == "0|g"
    assert float(seen[f"lifecycle.gate.duration{of_campaign}"].removesuffix("|ms")) > 0
    slowest = float(seen[f"lifecycle.gate.slowest{of_campaign}"].removesuffix("|ms"))
    assert slowest >= float(seen[f"lifecycle.gate.duration{of_campaign}"].removesuffix("|ms"))
    assert re.fullmatch(r"-?\d+\.\d+\|g", seen[f"lifecycle.cohort.lateness{of_campaign}"])
    assert "lifecycle.rejected" not in " ".join(seen)


def test_task_that_waits_for_the_throttle_is_seen_by_a_statsd_server(
    daily: DailyDag, statsd: StatsdServer
) -> None:
    daily.project.include.write("throttles.yaml", "lifecycle_smtp: {mails_per_day: 2}")
    daily.add_users(1, 2, 3)

    daily.run()

    seen = statsd.received()
    assert seen[f"lifecycle.sent,campaign={CAMPAIGN}"] == "2|c"
    assert seen[f"lifecycle.throttled,campaign={CAMPAIGN}"] == "1|c"


@pytest.mark.parametrize("name", [name for name, kind in metrics.METRICS.items() if kind == "counter"])
def test_every_counter_reaches_a_statsd_server(statsd: StatsdServer, name: str) -> None:
    metrics.count(name, 3, campaign="welcome")
    metrics.count(name, 0, campaign="another")
    assert statsd.received() == {f"{name},campaign=welcome": "3|c"}


def test_metric_that_is_not_documented_is_not_emitted(statsd: StatsdServer) -> None:
    with pytest.raises(ValueError, match=r"lifecycle\.send is no counter"):
        metrics.count("lifecycle.send", 1)
    assert statsd.received() == {}


def test_metrics_page_lists_exactly_what_is_emitted() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = dict(re.findall(r"^\| `(lifecycle\.[\w.]+)` \| (\w+) \|", page, re.MULTILINE))
    assert listed == metrics.METRICS
    glue = "".join(
        path.read_text()
        for path in (ROOT / "plugins/lifecycle_emails/operators").glob("*.py")
        if path.stem != "metrics"
    )
    assert (
        set(re.findall(r'"(lifecycle\.[a-z_.]+)"', glue)) & metrics.METRICS.keys() == metrics.METRICS.keys()
    )


def prometheus_names() -> set[str]:
    suffixes = {"counter": ("_total",), "gauge": ("",), "timer": ("", "_sum", "_count")}
    return {
        f"airflow_{name.replace('.', '_')}{suffix}"
        for name, kind in metrics.METRICS.items() for suffix in suffixes[kind]
    }  # fmt: skip


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yaml"])
def test_dashboard_and_alert_rules_name_only_metrics_that_are_emitted(file: str) -> None:
    text = (MONITORING / file).read_text()
    content = json.loads(text) if file.endswith(".json") else yaml.safe_load(text)
    named = set(re.findall(r"airflow_lifecycle_\w+", " ".join(expressions(content))))
    assert named
    assert named <= prometheus_names()


def test_every_alert_rule_leads_to_a_symptom_of_the_runbook() -> None:
    rules = [
        rule
        for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 5
    for rule in rules:
        page, anchor = rule["annotations"]["runbook"].split("#")
        assert page == "docs/runbook.md"
        assert anchor in RUNBOOK_ANCHORS
        assert rule["annotations"]["summary"]
