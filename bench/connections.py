"""How sending grows with SMTP connections over a long link: `python -m bench.connections --milliseconds 50`.

One sender process, as one task would be, sends through a proxy that delays every byte, with 1, 2, 4 ...
connections, up to the most that a campaign may set, and as many mails for each of them. Prints a table; the
last line is one JSON object. The exit code is 1 where the sink's count is not the ledger's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.arguments import MOST_CONNECTIONS, real_number, whole_number
from bench.contest import Contestant
from bench.long_link import DelayingProxy
from bench.sending_place import LEDGER_SETTINGS, Load, make_include, make_place, senders
from bench.sinks import running_sink
from bench.variants import PACKAGE
from local_stack.interruption import sigterm_interrupts
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Send with each number of connections; return the exit code."""
    options = _options(arguments)
    rates: dict[int, float] = {}
    try:
        for connections, rate in measured(options):
            rates[connections] = rate
            each = rate / connections
            print(f"{connections:4} connections {rate:8.1f} mails/s, {each / rates[1]:.2f} of one alone each")
    except RuntimeError as error:  # a count that differs
        print(error, file=sys.stderr)
        return 1
    mails_per_s = {connections: round(rate, 1) for connections, rate in rates.items()}
    print(json.dumps({"milliseconds": options.milliseconds, "mails_per_s": mails_per_s}))
    return 0


def measured(options: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Give numbers of connections and mails per second. RuntimeError: sink and ledger count differently."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        server = PostgresServer(folder / "postgres", free_port(), LEDGER_SETTINGS)
        stack.callback(server.remove)
        server.start()
        sink = stack.enter_context(running_sink())
        link = stack.enter_context(DelayingProxy(sink.port, options.milliseconds / 2000))
        connections = 1
        while connections <= options.most:
            load = Load(options.mails * connections, 1, 1, connections)
            here = folder / str(connections)
            here.mkdir()
            place = make_place(server, f"link{connections}", make_include(here, load), PACKAGE.parent, load)
            with senders(place, link.port, load) as send:
                contestant = Contestant(f"{connections} connections", send)
                contestant.compete(sink)
            yield connections, contestant.rate
            connections *= 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.connections", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--milliseconds", type=real_number(0), default=50, help="of a round trip")
    parser.add_argument("--mails", type=whole_number(1), default=40, help="for each connection")
    parser.add_argument(
        "--most",
        type=whole_number(1, MOST_CONNECTIONS),
        default=MOST_CONNECTIONS,
        help="the largest number of connections",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with sigterm_interrupts():
        sys.exit(main())
