"""Measure the sender alone against the limit of the wire, on this machine, in one run.

`python -m bench.sender --size 20000 --rounds 3`. Everybody sends to the same null sink, in turns, so that
whatever else the machine does hits all of them: Postfix's `smtp-source`, a bare `smtplib` loop with one
prebuilt message, the sender in two processes (as two mapped tasks would run), and patched copies of the
sender. Rates are mails per second; what counts are the ratios. Prints a table; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.arguments import MOST_CONNECTIONS, whole_number
from bench.contest import Contestant, named, ratio, table
from bench.loops import LOOP, SOURCE, bare_smtplib, example_message, smtp_source
from bench.sending_place import (
    CAMPAIGN,
    LEDGER_SETTINGS,
    MOST_USERS,
    Load,
    make_include,
    make_place,
    senders,
)
from bench.sinks import Sink, postfix_program, recipients, running_sink
from bench.variants import BY_STANDARD_LIBRARY, NEVER_WAITS, ONE_BY_ONE, PACKAGE, VARIANTS, WITHOUT_UPDATE
from local_stack.interruption import sigterm_interrupts
from local_stack.loopback_certificate import make_certificate
from local_stack.ports import free_port
from local_stack.postgres import PostgresServer

SENDER, OTHER = "sender", "other sender"
SLOW = {ONE_BY_ONE: 4, BY_STANDARD_LIBRARY: 4}
"""Variants that take long send so many times fewer mails."""


@dataclass(frozen=True)
class Ground:
    """What contestants stand on: a folder, a Postgres server, a sink, and what has to be sent to it."""

    folder: Path
    server: PostgresServer
    sink: Sink
    load: Load
    certificate: Path | None = None

    @property
    def name(self) -> str:
        """A name for databases of this ground alone."""
        return "tls" if self.certificate else "clear"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds that the command line asks for."""
    options = _options(arguments)
    load = Load(options.size, options.rounds, options.processes, options.connections)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        folder.chmod(0o711)
        server = PostgresServer(folder / "postgres", options.port or free_port(), LEDGER_SETTINGS)
        stack.callback(server.remove)
        server.start()
        certificate = make_certificate(folder / "sink.pem") if options.tls else None
        sink = stack.enter_context(running_sink(certificate=certificate))
        ground = Ground(folder, server, sink, load, certificate)
        contestants = loops(ground)
        contestants += own_senders(ground, stack, tuple(VARIANTS), options.other)
        if options.only:
            contestants = [one for one in contestants if one.name in options.only]
        for _ in range(options.rounds):
            for contestant in contestants:
                contestant.compete(sink)
        print(f"\n{load.size} mails, {load.rounds} rounds, {load.processes} processes with "
              f"{load.connections} connections each, to {sink.name}\n")  # fmt: skip
        print(table(contestants, SOURCE))
        print(json.dumps({"size": load.size, "sink": sink.name, **figures(contestants)}))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--size",
        type=whole_number(least_size(1), MOST_USERS),
        default=20_000,
        help="mails of each contestant and round",
    )
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--processes", type=whole_number(1), default=2, help="senders at once")
    parser.add_argument(
        "--connections",
        type=whole_number(1, MOST_CONNECTIONS),
        default=32,
        help="SMTP connections of each sender",
    )
    parser.add_argument("--only", nargs="*", help="names of contestants; all of them when left out")
    parser.add_argument("--other", type=Path, help="folder with another lifecycle_emails to compare with")
    parser.add_argument("--tls", action="store_true", help="after STARTTLS, to the built-in sink")
    parser.add_argument("--folder", help="where the ledger's database lies; fsync is on")
    parser.add_argument("--port", type=whole_number(1, 65535), help="port of the ledger's database")
    options = parser.parse_args(arguments)
    least = least_size(options.processes)
    if options.size < least:
        parser.error(f"argument --size: it is at least {least} with {options.processes} processes")
    return options


def least_size(processes: int) -> int:
    """The fewest mails with which each of so many processes has one to send, in slow variants too."""
    return max(SLOW.values()) * processes


def loops(ground: Ground) -> list[Contestant]:
    """Those who send one message over and over; smtp-source where Postfix is installed, and without TLS."""
    sink, size = ground.sink, ground.load.size
    message = example_message(_include(ground), CAMPAIGN)
    found = []
    if postfix_program(SOURCE) and not sink.tls:
        found.append(Contestant(SOURCE, lambda: smtp_source(sink, size)))
    found.append(Contestant(LOOP, lambda: bare_smtplib(message, sink, size, ground.certificate)))
    return found


def own_senders(
    ground: Ground, stack: ExitStack, variants: Sequence[str] = (), other: Path | None = None
) -> list[Contestant]:
    """The sender, some variants, and the sender of another package; their processes end with ``stack``."""
    include = _include(ground)
    names = [SENDER, *variants, *([OTHER] if other else [])]
    found = []
    for number, name in enumerate(names):
        load = replace(ground.load, size=ground.load.size // SLOW.get(name, 1))
        variant = VARIANTS.get(name)
        package = PACKAGE.parent
        if variant is not None:
            package = variant.copy(ground.folder / f"{ground.name}_{number}")
        elif other and name == OTHER:
            package = other
        unguarded = variant is not None and variant.unguarded
        place = make_place(
            ground.server, f"{ground.name}_{number}", include, package, load, unguarded=unguarded
        )
        send = stack.enter_context(senders(place, ground.sink.port, load, ground.certificate))
        found.append(Contestant(name, send))
    return found


def count_copies(ground: Ground) -> int:
    """Let the sender send once more, to a sink that keeps the mails; returns the most copies of one user.

    The timed rounds only count mails: keeping them would cost the sink more than taking them. Raises
    RuntimeError where the users who got a mail are not as many as those sent to.
    """
    kept = ground.folder / "kept"
    load = replace(ground.load, rounds=1)
    place = make_place(ground.server, "copies", _include(ground), PACKAGE.parent, load)
    with running_sink(keep=kept) as sink, senders(place, sink.port, load) as send:
        contestant = Contestant(SENDER, send)
        contestant.compete(sink)
    copies = recipients(kept)
    if copies.total() != contestant.runs[0].mails or max(copies.values()) != 1:
        raise RuntimeError(
            f"{contestant.runs[0].mails} mails were sent; the sink kept {copies.total()} for {len(copies)} "
            f"recipients, at most {max(copies.values())} for one"
        )
    return max(copies.values())


def figures(contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Ratios of the sender to the others that competed; null for those who did not."""
    sender = named(contestants, SENDER)
    against = {name: ratio(named(contestants, name), sender) for name in VARIANTS}

    def percent(name: str) -> float | None:
        share = against[name]
        return None if share is None else round((share - 1) * 100, 1)

    return {
        "sender_mails_per_s": round(sender.rate, 1) if sender else None,
        "sender_ratio_smtp_source": rounded(ratio(sender, named(contestants, SOURCE))),
        "ratio_smtplib": rounded(ratio(sender, named(contestants, LOOP))),
        "gate_cost_percent": percent(WITHOUT_UPDATE),
        "gate_wait_cost_percent": percent(NEVER_WAITS),
        "group_commit_gain": rounded(_inverse(against[ONE_BY_ONE])),
        "message_building_gain": rounded(_inverse(against[BY_STANDARD_LIBRARY])),
    }


def rounded(value: float | None) -> float | None:
    """Three digits behind the point are more than these figures are good for."""
    return None if value is None else round(value, 3)


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 / value


def _include(ground: Ground) -> Path:
    include = ground.folder / "include"
    return include if include.exists() else make_include(ground.folder, ground.load)


if __name__ == "__main__":
    with sigterm_interrupts():
        main()
