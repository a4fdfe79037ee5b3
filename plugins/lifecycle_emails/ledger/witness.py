"""Notices a ledger that went back in time, and lets it be trusted again.

A ledger restored from a backup, or a standby promoted without its last commits, has forgotten what was sent
and would send it again. The ledger knows the server and table it lives in (`lifecycle.known_server`); a
witness outside it remembers the newest mark that the ledger ever made. What does not fit halts all sending.

Knows named queries and how witnesses are kept. Must not know Airflow, nor where the configuration comes from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from lifecycle_emails.errors import ConfigurationError, LedgerError
from lifecycle_emails.ledger.alerts import create_alert
from lifecycle_emails.ledger.orders import known_campaigns
from lifecycle_emails.ledger.provider import MAINTENANCE
from lifecycle_emails.ledger.queries import query
from lifecycle_emails.ledger.session import LedgerConnection, first_line, one_row, planning_transaction
from lifecycle_emails.order import mistake_in_reason

WITNESS_VARIABLE = "LIFECYCLE_WITNESS"
"""Environment variable that says where the witness is kept: a file's path, or a second database's DSN."""

LONGEST_AGO = timedelta(days=366)
"""How far back a person may say that the ledger went."""


@dataclass(frozen=True)
class Mark:
    """A mark of a ledger: ``position`` only grows, ``mark`` is random, ``marked_at`` is the ledger's time."""

    ledger_id: UUID
    mark: UUID
    position: int
    marked_at: datetime


class Witness(Protocol):
    """A memory outside the ledger's server. It shares no disk, backup or standby with it."""

    def read(self) -> Mark | None:
        """The newest mark it was told, or None. Raises LedgerError when it cannot be read."""

    def write(self, mark: Mark) -> None:
        """Remember a mark, durably. Raises LedgerError when it cannot."""


class FileWitness:
    """A witness in a file, replaced whole. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Mark | None:
        """See `Witness`."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return Mark(
                UUID(found["ledger_id"]),
                UUID(found["mark"]),
                int(found["position"]),
                datetime.fromisoformat(found["marked_at"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._failed("read", error) from None

    def write(self, mark: Mark) -> None:
        """See `Witness`."""
        beside = self._path.with_name(f"{self._path.name}.{mark.mark}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump(asdict(mark), file, default=str)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failed("written", error) from None

    def _failed(self, what: str, error: Exception) -> LedgerError:
        why = getattr(error, "strerror", None) or type(error).__name__
        return LedgerError(
            f"the ledger's witness {self._path} cannot be {what} ({why}), so nothing is sent from here. "
            f"Mend it, or set {WITNESS_VARIABLE} to another place"
        )


class DatabaseWitness:
    """A witness in a table ``lifecycle_witness`` of a second database, on another server."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connect = connect

    def read(self) -> Mark | None:
        """See `Witness`."""
        try:
            with self._connect() as connection:
                connection.execute(query("create_witness"))
                row = connection.execute(query("read_witness")).fetchone()
        except psycopg.Error as error:
            raise self._failed("read", error) from None
        return Mark(*row) if row else None

    def write(self, mark: Mark) -> None:
        """See `Witness`."""
        try:
            with self._connect() as connection:
                connection.execute(query("create_witness"))
                connection.execute(query("write_witness"), asdict(mark))
        except psycopg.Error as error:
            raise self._failed("written", error) from None

    @staticmethod
    def _failed(what: str, error: Exception) -> LedgerError:
        return LedgerError(
            f"the ledger's witness database cannot be {what}, so nothing is sent: {first_line(error)}"
        )


def witness_of(setting: str | None) -> Witness | None:
    """The witness that a setting names: a path, or a ``postgresql://`` DSN; None for None or an empty text.

    Raises ConfigurationError for a path that is not absolute: every process would have a witness of its own.
    """
    if not setting:
        return None
    if setting.startswith(("postgresql://", "postgres://")):
        return DatabaseWitness(lambda: psycopg.connect(setting))
    path = Path(setting)
    if not path.is_absolute():
        raise ConfigurationError(
            f"{WITNESS_VARIABLE} is {setting!r}; write an absolute path, or the DSN of a second database"
        )
    return FileWitness(path)


def watch(ledger: LedgerConnection, witness: Witness | None) -> str | None:
    """Compare the ledger with its server and its witness; make a new mark when all fits.

    Returns what does not fit, or None. The first finding halts all sending, until `trust_again`, and is an
    alert for the maintenance callbacks. So is a witness that remembers nothing of a ledger with marks, once a
    day; it halts nothing, since every new one begins so. Raises LedgerError when the witness cannot be read
    or written.
    """
    (difference,) = one_row(ledger.execute(query("difference_of_server")))
    seen = witness.read() if witness is not None else None
    missing = _missing(ledger, seen) if seen is not None else None
    finding = "; ".join(part for part in (difference, missing) if part)
    if finding:
        _record_finding(ledger, finding, mark_is_missing=missing is not None)
        return finding
    learn_server(ledger)
    if witness is not None:
        if seen is None:
            _tell_of_empty_witness(ledger)
        witness.write(_make_mark(ledger))
    return None


def learn_server(ledger: LedgerConnection) -> None:
    """Note what the server did not tell of its identity when the ledger was made, and tells now.

    A server that differs from the known one is not noted: only `trust_again` does that.
    """
    with planning_transaction(ledger):
        ledger.execute(query("learn_server"))


def trust_again(
    ledger: LedgerConnection,
    witness: Witness | None,
    *,
    since: datetime | None,
    now: datetime,
    reason: str,
    actor: str = "",
) -> int:
    """Trust the ledger again: its memory is missing from ``since`` (aware) on, or nothing is for None.

    Returns how many users are in doubt for it.

    Whoever may have been mailed since then is in doubt from now on: all users not gated yet, of every cohort
    that was open in that time. Whoever is first planned into such a cohort later becomes so by planning.
    Works without a finding too, for a restore that somebody knows of. Raises LedgerError, and changes
    nothing: without a reason or with an @ in it, for a time to come or more than a year ago, and for None
    when the witness knows better.
    """
    _check_what_is_missing(since, now, reason)
    with planning_transaction(ledger, actor=actor):
        for campaign_id in known_campaigns(ledger):
            ledger.execute(query("lock_campaign"), {"campaign": campaign_id})
        ledger.execute(query("lock_frequency_cap"))
        ledger.execute(query("lock_cohorts"))
        found = {"finding": "reported by a person", "mark_is_missing": False}
        ledger.execute(query("record_finding"), found)
        (mark_is_missing,) = one_row(ledger.execute(query("open_restore")))
        if since is None and mark_is_missing:
            raise LedgerError(
                "the witness saw a mark that this ledger has not, so something was lost; nothing was "
                "changed. Say since when: lifecycle restored --since TIME"
            )
        ledger.execute(query("release_restore"), {"since": since, "reason": reason.strip(), "actor": actor})
        ledger.execute(query("know_server"))
        in_doubt = ledger.execute(query("doubt_lost_time")).rowcount
        _write_down(ledger, since, reason.strip(), actor, f"{in_doubt} users are in doubt for it")
    if witness is not None:
        witness.write(_make_mark(ledger))
    return in_doubt


def durability_warnings(ledger: LedgerConnection, witness: Witness | None) -> list[str]:
    """What weakens the guarantee in how the ledger's server runs, a sentence each; empty for nothing."""
    fsync, full_page_writes, standby_names, standbys, server_tells, server_is_known = one_row(
        ledger.execute(query("durability"))
    )
    warnings = []
    if fsync != "on":
        warnings.append("fsync is off: nothing is sent, since a crash could make the ledger forget")
    if full_page_writes != "on":
        warnings.append("full_page_writes is off: a crash could damage the ledger")
    if standbys and not standby_names:
        warnings.append(
            "a standby is connected and synchronous_standby_names is empty: a failover may lose the last "
            "sends, and halts sending until lifecycle restored says since when"
        )
    if not server_tells:
        warnings.append(
            "the server does not tell its identity, so a failover is not noticed: GRANT EXECUTE ON FUNCTION "
            "pg_control_system, pg_current_wal_insert_lsn and pg_walfile_name to the ledger's role"
        )
    elif not server_is_known:
        warnings.append(
            "the ledger has not noted its server's identity yet, so a failover is not noticed: the next "
            "round of maintenance or lifecycle migrate notes it"
        )
    if witness is None:
        warnings.append(
            "there is no witness outside the ledger: a copy of its whole server put back is not noticed; set "
            f"{WITNESS_VARIABLE}"
        )
    return warnings


def _missing(ledger: LedgerConnection, seen: Mark) -> str | None:
    known, newest = one_row(ledger.execute(query("mark_is_known"), asdict(seen)))
    if known:
        return None
    return (
        f"the witness saw a mark of {seen.marked_at.isoformat(timespec='seconds')} that this ledger has not; "
        f"its own newest is of {newest.isoformat(timespec='seconds') if newest else 'never'}"
    )


def _record_finding(ledger: LedgerConnection, finding: str, *, mark_is_missing: bool) -> None:
    with planning_transaction(ledger):
        arguments = {"finding": finding, "mark_is_missing": mark_is_missing}
        if ledger.execute(query("record_finding"), arguments).rowcount:
            create_alert(
                ledger,
                "ledger_went_back",
                None,
                None,
                run="",
                facts={"finding": finding},
                callbacks=MAINTENANCE,
            )


def _tell_of_empty_witness(ledger: LedgerConnection) -> None:
    with planning_transaction(ledger):
        (newest,) = one_row(ledger.execute(query("newest_mark_untold")))
        if newest is not None:
            facts = {"newest_mark": newest.isoformat(timespec="seconds")}
            create_alert(ledger, "witness_forgot", None, None, run="", facts=facts, callbacks=MAINTENANCE)


def _make_mark(ledger: LedgerConnection) -> Mark:
    """Committed before a witness hears of it: a crash in between leaves a mark that nobody saw."""
    with planning_transaction(ledger):
        return Mark(*one_row(ledger.execute(query("make_mark"))))


def _write_down(
    ledger: LedgerConnection, since: datetime | None, reason: str, actor: str, result: str
) -> None:
    """Into the audit, in the release's own transaction."""
    (action_id,) = one_row(
        ledger.execute(
            query("begin_action"),
            {
                "actor": actor or ledger.info.user,
                "actor_kind": "command",
                "action": "restored",
                "arguments": Jsonb({"since": since and since.isoformat()}),
                "reason": reason,
                "run_key": None,
            },
        )
    )
    ledger.execute(query("end_action"), {"action_id": action_id, "result": result})


def _check_what_is_missing(since: datetime | None, now: datetime, reason: str) -> None:
    if mistake := mistake_in_reason(reason):
        raise LedgerError(f"{mistake}; nothing was changed")
    if since is not None and since >= now:
        raise LedgerError(f"{since.isoformat()} is still to come; nothing was changed")
    if since is not None and since < now - LONGEST_AGO:
        raise LedgerError(
            f"{since.isoformat()} is more than a year ago; is its year right? Nothing was changed"
        )
