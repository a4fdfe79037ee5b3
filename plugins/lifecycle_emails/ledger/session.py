"""Ledger connections and transactions with every setting stated, none inherited.

Knows psycopg and the settings that the guarantee rests on. Must not know what the transactions are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import psycopg

from lifecycle_emails.errors import LedgerError
from lifecycle_emails.ledger.migration import check_migrated
from lifecycle_emails.ledger.queries import query

LedgerConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Connect: TypeAlias = Callable[[], LedgerConnection]

PLANNING_TIMEOUT_SECONDS = 1800
"""Set steps over a whole cohort may wait for each other and run this long."""

LEAST_IDLE_SECONDS = 60
"""A session silent for so long in mid-transaction, or for its statement time-out if longer, is ended."""


def connect_to_ledger(connect: Connect) -> LedgerConnection:
    """Open a ledger connection by ``connect`` and make it ready for use.

    Raises LedgerError when the database cannot be reached, does not let this role in, or has not the schema
    that this package needs.
    """
    try:
        ledger = connect()
        try:
            ledger.autocommit = True
            if _is_pooled(ledger):
                ledger.prepare_threshold = None
            check_migrated(ledger)
        except BaseException:
            ledger.close()
            raise
    except psycopg.OperationalError as error:
        raise LedgerError(
            "the ledger's database cannot be reached; nothing was changed. Check the Airflow connection (or "
            f"LIFECYCLE_LEDGER_DSN) and that the server runs. It said: {first_line(error)}"
        ) from None
    except psycopg.Error as error:
        raise _refused(error) from None
    return ledger


def _is_pooled(ledger: LedgerConnection) -> bool:
    """Whether a pooler such as PgBouncer stands between: another process answers than was announced.

    In transaction mode the next transaction meets another server connection, which knows no statement that
    this one prepared, or one of the same name by somebody else.
    """
    (answering,) = one_row(ledger.execute(query("backend_pid")))
    return bool(answering != ledger.info.backend_pid)


@contextmanager
def ledger_session(connect: Connect) -> Iterator[LedgerConnection]:
    """A ledger connection for one block of work, closed at its end.

    Whatever the database says against it becomes a LedgerError; every step can be repeated, none is done by
    half.
    """
    ledger = connect_to_ledger(connect)
    try:
        yield ledger
    except psycopg.OperationalError as error:
        raise LedgerError(
            "the connection to the ledger was lost or timed out; run this again. It said: "
            f"{first_line(error)}"
        ) from error
    except psycopg.Error as error:
        raise _refused(error) from error
    finally:
        ledger.close()


@contextmanager
def ledger_transaction(
    ledger: LedgerConnection,
    *,
    actor: str = "",
    lock_timeout: float,
    statement_timeout: float,
    roll_back: bool = False,
) -> Iterator[None]:
    """One READ COMMITTED transaction whose settings hold behind a transaction pooler too.

    READ COMMITTED is what the frequency cap needs: each statement sees what was committed before it began,
    so a count made after taking the cap lock sees every slot. ``actor`` is written into history. Times in
    seconds.
    """
    with ledger.transaction(force_rollback=roll_back):
        ledger.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        ledger.execute(query("state_settings"), settings(actor, lock_timeout, statement_timeout))
        yield


def one_row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The row of a query that always gives one: an aggregate, INSERT ... RETURNING, the installation."""
    row = cursor.fetchone()
    if row is None:
        raise LedgerError("the ledger gave no row where it always has one; was its installation row deleted?")
    return row


def planning_transaction(
    ledger: LedgerConnection, *, actor: str = "", roll_back: bool = False
) -> AbstractContextManager[None]:
    """A `ledger_transaction` for steps over a whole cohort; a dry run rolls it back."""
    return ledger_transaction(
        ledger,
        actor=actor,
        lock_timeout=PLANNING_TIMEOUT_SECONDS,
        statement_timeout=PLANNING_TIMEOUT_SECONDS,
        roll_back=roll_back,
    )


def settings(actor: str, lock_timeout: float, statement_timeout: float) -> dict[str, str]:
    """Parameters of the query ``state_settings``."""
    return {
        "actor": actor,
        "lock_timeout": f"{int(lock_timeout * 1000)}ms",
        "statement_timeout": f"{int(statement_timeout * 1000)}ms",
        "idle_timeout": f"{int(max(statement_timeout, LEAST_IDLE_SECONDS) * 1000)}ms",
    }


def _refused(error: psycopg.Error) -> LedgerError:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        advice = "Grant that to the role of the connection, or connect as the role that ran lifecycle migrate"
    else:
        advice = "If it is not clear what to mend, report it with the whole log"
    return LedgerError(
        f"the ledger's database refuses this: {first_line(error)}; nothing was done by half. {advice}"
    )


def first_line(error: BaseException) -> str:
    """The first line of a database's message; later lines may quote rows."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
