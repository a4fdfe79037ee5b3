"""Metrics through Airflow's own stats, as an OpenTelemetry collector receives them over HTTP."""

import atexit
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics.otel_logger import flush_otel_metrics
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from opentelemetry.metrics import get_meter_provider
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics import MeterProvider

from lifecycle_emails.ledger.orders import suppress
from lifecycle_emails.operators import metrics
from lifecycle_emails.operators.maintain import MaintainOperator
from tests.dags.daily_dag import CAMPAIGN, DailyDag

KINDS = {"counter": "sum", "gauge": "gauge", "timer": "exponential_histogram"}
"""What a kind of metric is in OpenTelemetry."""

SHORT_PROCESS = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

from lifecycle_emails.operators import metrics

stats.initialize(factory=get_stats_factory(), export_legacy_names=False)  # as a task process does
emit = {"counter": metrics.count, "gauge": metrics.gauge, "timer": metrics.timing}
for name, kind in metrics.METRICS.items():
    emit[kind](name, 3, campaign="welcome")
"""
"""Like a task it is over before the first interval of export (a minute)."""


class Collector:
    """An HTTP server that takes metrics as OpenTelemetry's own collector does, and what arrived there."""

    def __init__(self) -> None:
        arrived: list[Metric] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportMetricsServiceRequest.FromString(
                    self.rfile.read(int(self.headers["Content-Length"]))
                )
                arrived.extend(
                    metric
                    for resource in request.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                )
                found = self.path == "/v1/metrics"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportMetricsServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self._arrived = arrived
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def received(self) -> dict[str, tuple[str, Any]]:
        """Send what waits, as Airflow does when a process ends; kind and last value of each lifecycle metric."""
        flush_otel_metrics()
        values = {}
        for metric in self._arrived:
            if not metric.name.startswith("airflow.lifecycle."):
                continue
            kind = metric.WhichOneof("data")
            assert kind
            for point in getattr(metric, kind).data_points:
                tags = "".join(
                    f",{tag.key}={tag.value.string_value}"
                    for tag in sorted(point.attributes, key=lambda tag: tag.key)
                )
                value = point.sum if kind == KINDS["timer"] else getattr(point, point.WhichOneof("value"))
                values[f"{metric.name}{tags}"] = (kind, value)
        return values

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    # DAG.test runs tasks in this process, which began with metrics off; a task process does this as it starts
    logger = get_stats_factory()()
    stats.initialize(factory=lambda: logger, export_legacy_names=False)
    yield collector
    provider = get_meter_provider()
    assert isinstance(provider, MeterProvider)
    provider.shutdown()
    atexit.unregister(flush_otel_metrics)
    monkeypatch.undo()
    stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
    collector.close()


def test_daily_run_and_maintenance_are_seen_by_an_open_telemetry_collector(
    daily: DailyDag, collector: Collector
) -> None:
    daily.add_users(1, 2, 3)
    suppress(daily.ledger, user_id="3", reason="asked for it")

    daily.run()
    MaintainOperator(task_id="maintain", include_dir=str(daily.project.include.path)).execute({})

    seen = collector.received()
    of_campaign = f",campaign={CAMPAIGN}"
    assert seen[f"airflow.lifecycle.sent{of_campaign}"] == ("sum", 2)
    assert seen[f"airflow.lifecycle.held{of_campaign},reason=suppressed"] == ("gauge", 1)
    assert seen[f"airflow.lifecycle.oldest_open_row{of_campaign}"] == ("gauge", 0)
    kind, duration = seen[f"airflow.lifecycle.gate.duration{of_campaign}"]
    assert kind == "exponential_histogram"
    assert 0 < duration <= seen[f"airflow.lifecycle.gate.slowest{of_campaign}"][1]
    assert f"airflow.lifecycle.cohort.lateness{of_campaign}" in seen
    assert "example.com" not in json.dumps(list(seen))


def test_process_that_ends_at_once_sends_every_metric_under_its_name_and_kind(collector: Collector) -> None:
    subprocess.run([sys.executable, "-c", SHORT_PROCESS], check=True, timeout=120)
    assert collector.received() == {
        f"airflow.{name},campaign=welcome": (KINDS[kind], 3000.0 if kind == "timer" else 3)
        for name, kind in metrics.METRICS.items()
    }
