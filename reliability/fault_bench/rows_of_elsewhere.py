"""Rows that this bench does not play itself, and where they are played."""

from __future__ import annotations

from reliability.fault_bench.fault import Fault, Faults

FAULTS: Faults = (
    Fault(
        "the origin: Celery on Redis, a task that outlasts the visibility timeout",
        "redelivered, 1 accepted; the old way several",
        "the row's state at the gate",
        None,
        not_automated_because="it needs Redis and Celery workers: `make incident` plays it, both ways",
    ),
    Fault(
        "a ledger restored from an hour ago; a standby that lacks the last commits",
        "sending halts, after the release 0 second copies",
        "the witness outside the ledger",
        None,
        not_automated_because=(
            "one server serves all rows, and cannot be put back for one of them. "
            "tests/integration/ledger/test_witness_of_servers.py plays it, and that without a witness files "
            "put back go unnoticed"
        ),
    ),
    Fault(
        "the dialogue cut at every point, with a real Postfix",
        "nothing accepted before the whole dot",
        "the dot is written last and alone",
        None,
        not_automated_because="it needs Postfix and root: `make mta-cuts` plays it, and so does a test",
    ),
)
