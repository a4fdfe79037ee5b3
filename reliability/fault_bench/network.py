"""The process of the sinks and the proxies: `python -m ...`, commands as JSON lines on standard input.

Apart from everything else so that its threads disturb nobody's fork, and so that what a sink accepted does
not depend on who is killed. Ends at the end of its input.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability.fault_bench.ledger_proxy import LedgerProxy
from reliability.fault_bench.sink import Sink, SinkPlan


class Network:
    """Sinks and proxies by port."""

    def __init__(self) -> None:
        self._sinks: dict[int, Sink] = {}
        self._proxies: dict[int, LedgerProxy] = {}

    def obey(self, command: dict[str, Any]) -> Any:
        """Do one command and give its answer."""
        name = command.pop("do")
        commands: dict[str, Callable[..., Any]] = {
            "open sink": self._open_sink,
            "settle": lambda port, seconds: self._sinks[port].settle(seconds),
            "always": lambda port, phase, mode: self._sinks[port].always(phase, mode),
            "tell": lambda port: self._sinks[port].tell(),
            "reached": lambda port: self._sinks[port].reached(),
            "close sink": lambda port: self._sinks.pop(port).stop(),
            "open proxy": self._open_proxy,
            "cuts": lambda port: self._proxies[port].cuts,
            "close proxy": lambda port: self._proxies.pop(port).close(),
        }
        return commands[name](**command)

    def close(self) -> None:
        """Close whatever is open."""
        for proxy in self._proxies.values():
            proxy.close()
        for sink in self._sinks.values():
            sink.stop()

    def _open_sink(self, plan: dict[str, Any], record: str, log: str) -> int:
        sink = Sink(SinkPlan(**plan), Path(record), Path(log)).start()
        self._sinks[sink.port] = sink
        return sink.port

    def _open_proxy(self, target: int, **cut: Any) -> int:
        proxy = LedgerProxy(target, **cut)
        self._proxies[proxy.port] = proxy
        return proxy.port


def main() -> None:
    """Serve until the bench is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    network = Network()
    for line in sys.stdin:
        sys.stdout.write(json.dumps({"answer": network.obey(json.loads(line))}) + "\n")
        sys.stdout.flush()
    network.close()


if __name__ == "__main__":
    main()
