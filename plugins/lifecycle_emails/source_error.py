"""Say why an audience's query failed, in its author's terms and without anybody's data.

PostgreSQL's messages quote what they stumble over: names from the query, which its author needs, and values
from rows, which belong in no log. Knows SQLSTATE classes (PostgreSQL manual, appendix A); must not know
cohorts.
"""

from __future__ import annotations

import re

import psycopg

from lifecycle_emails.address import scrub_addresses
from lifecycle_emails.errors import SourceError

_OF_THE_QUERY = (
    "42"  # syntax error or access rule violation: such messages quote the query and the catalog only
)
_RAISED = "P0"  # by a function's own code: the message can be anything
_QUOTED = re.compile(r'".*"', re.DOTALL)
_NUMBER = re.compile(r"\d+")


def explain(error: psycopg.Error, *, audience: str, text: str, sent: str) -> SourceError:
    """Return the SourceError for ``error``.

    ``audience`` is the file's name, ``text`` its query, and ``sent`` the statement around it, in which the
    text starts on the second line (empty when the error is not about a statement with the text in it).
    """
    message = error.diag.message_primary
    if message is None:
        return SourceError(f"{audience}: {_said_by_the_client(error)}")
    sqlstate = error.sqlstate or ""
    if sqlstate.startswith(_RAISED):
        message = "a function that the query calls raised an error of its own"
    elif not sqlstate.startswith(_OF_THE_QUERY):
        message = _without_values(message, text)
    elif error.diag.message_hint:
        message = f"{message.rstrip('.')}. {error.diag.message_hint}"
    line = _line(error.diag.statement_position, sent)
    place = f"{audience}, line {line}" if line else audience
    return SourceError(f"{place}: {scrub_addresses(message).rstrip('.')}. {_advice(sqlstate)}")


def _said_by_the_client(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return (
            "the source's connection was lost or cannot be used. Check that the database of the campaign's "
            "source_conn_id is up and reachable, then run the task again."
        )
    return (
        f"the source returned a value that Python cannot hold ({type(error).__name__}). Cast that column to "
        "text, or leave such rows out."
    )


def _without_values(message: str, text: str) -> str:
    """Return ``message`` without the quotations and numbers that do not stand in the query's ``text``."""
    message = _QUOTED.sub(lambda quoted: quoted[0] if quoted[0].strip('"') in text else '"<value>"', message)
    return _NUMBER.sub(lambda number: number[0] if number[0] in text else "<value>", message)


def _line(position: str | None, sent: str) -> int | None:
    """Line of the audience's file at ``position`` of the statement (characters, from 1)."""
    if position is None or not sent:
        return None
    return sent.count("\n", 0, int(position) - 1) or None


def _advice(sqlstate: str) -> str:
    if sqlstate == "57014":  # query_canceled
        return "The query took too long or was cancelled: give it an index on created_at, or run it again."
    if sqlstate.startswith("25"):  # invalid transaction state: it tried to write
        return "An audience only reads."
    if sqlstate in {"22023", "22009"}:  # a parameter or a time zone that the server does not know
        return "Check the query's values, and that the server knows the campaign's source_timezone."
    if sqlstate.startswith(("08", "53", "57")):  # connection, resources, operator intervention
        return "The server is short of something or shutting down; run the task again."
    return "Mend the query, then run the task again."
