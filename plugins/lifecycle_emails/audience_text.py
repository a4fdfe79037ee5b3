"""The text of an audience: one SQL query, as a team wrote it, made ready for PostgreSQL.

Knows as much of SQL as it takes to tell text from comments and strings. PostgreSQL has the last word: the
text only ever runs through the extended protocol, which takes one statement, in a read-only transaction.
"""

from __future__ import annotations

import re
from pathlib import Path

from lifecycle_emails.configuration_file import shown_name
from lifecycle_emails.errors import ConfigurationError

PARAMETERS = {"%(cohort_start)s": "$1", "%(cohort_end)s": "$2"}
"""What stands for the cohort's window in the text, and the positional parameter that it becomes."""

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<quoted>  [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
                 | \$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$ )
    | (?P<window>  %\(cohort_(?:start|end)\)s )
    | (?P<number>  \$\d+ )
    | (?P<end>     ; )
    | (?P<word>    [^\W\d][\w$]* | \s+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def audience_name(include_dir: Path, file_name: str) -> str:
    """Return how messages call an audience's file."""
    return shown_name(include_dir / "audiences" / file_name, include_dir)


def read_audience_text(include_dir: Path, file_name: str) -> str:
    """Read ``include_dir/audiences/<file_name>`` and return its query, the window as ``$1`` and ``$2``.

    Lines stay where they are, so that PostgreSQL's positions are the file's. Every ``%`` but the window's two
    parameters is SQL. Raises ConfigurationError when the file is missing or holds anything but one query of
    both parameters.
    """
    name = audience_name(include_dir, file_name)
    try:
        text = (include_dir / "audiences" / file_name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no file {name}. Write one SQL query into it.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text; save it as UTF-8.") from None
    return _translate(text, name)


def _translate(text: str, name: str) -> str:
    query: list[str] = []
    used: set[str] = set()
    ended = False
    for token in _TOKEN.finditer(text):
        kind, written = token.lastgroup, token[0]
        if kind == "end":
            ended, written = True, ""
        elif kind != "comment" and ended and not written.isspace():
            raise ConfigurationError(
                f"{name} holds a second statement; write one query, and nothing after `;`."
            )
        elif kind == "number":
            raise ConfigurationError(
                f"{name} uses {written}; write %(cohort_start)s and %(cohort_end)s instead."
            )
        elif kind == "window":
            used.add(written)
            written = PARAMETERS[written]
        query.append(written)
    for parameter in PARAMETERS:
        if parameter not in used:
            raise ConfigurationError(
                f"{name} does not use {parameter}, so it would return more users than the cohort's. Write "
                "`WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s`, without quotes."
            )
    return "".join(query)
