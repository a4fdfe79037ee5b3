"""The ``lifecycle`` command: what a person does to the ledger outside Airflow's UI.

Parses arguments, opens the ledger, calls one function, prints one result. Must not hold SQL or rules of its
own. Airflow is asked only for its connection, and only when no DSN is given.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from lifecycle_emails.errors import LedgerError, LifecycleError
from lifecycle_emails.ledger.migration import migrate
from lifecycle_emails.ledger.orders import halt, known_campaigns, resume, suppress, unsuppress
from lifecycle_emails.ledger.session import LedgerConnection, first_line, ledger_session

DSN_VARIABLE = "LIFECYCLE_LEDGER_DSN"
CONNECTION_ID = "lifecycle_ledger"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0: done, 1: refused or failed with a message, 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except LifecycleError as error:
        print(f"lifecycle: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lifecycle",
        description="Look after the sends ledger of the lifecycle e-mails.",
        epilog=f"The ledger's database is --ledger, else ${DSN_VARIABLE}, else the Airflow connection "
        f"{CONNECTION_ID}.",
    )
    parser.add_argument("--ledger", metavar="DSN", help="PostgreSQL connection string of the ledger")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(commands, "migrate", _migrate, "create or update the ledger's tables; safe to repeat")
    command.add_argument("--check", action="store_true", help="only say whether the ledger is up to date")

    command = _command(commands, "validate", _validate, "check campaign files, audiences and templates")
    command.add_argument("campaign", nargs="*", help="ids of campaigns; all of them when none is given")
    command.add_argument(
        "--include", type=Path, default=Path("include"), metavar="DIR", help="default: include"
    )

    for name, run, text in (
        ("suppress", _suppress, "never mail a user, or an address whoever has it"),
        ("unsuppress", _unsuppress, "lift a suppression"),
    ):
        command = _command(commands, name, run, text)
        whom = command.add_mutually_exclusive_group(required=True)
        whom.add_argument("--user", metavar="ID", help="the user's id in the source")
        whom.add_argument("--address", help="the e-mail address; only its keyed hash is kept")
        _campaign_and_reason(command)

    for name, run, text in (
        ("halt", _halt, "stop sending within seconds, in running tasks too"),
        ("resume", _resume, "lift a halt"),
    ):
        _campaign_and_reason(_command(commands, name, run, text))
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], str], text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text.capitalize()}."
    )
    command.set_defaults(run=run)
    return command


def _campaign_and_reason(command: argparse.ArgumentParser) -> None:
    command.add_argument("--campaign", metavar="ID", help="in this campaign only; in all when not given")
    command.add_argument("--reason", required=True, help="why; it is kept with your name")


def _migrate(options: argparse.Namespace) -> str:
    if options.check:
        with ledger_session(_connector(options)):
            return "the ledger is up to date"
    try:
        with _connector(options)() as connection:
            applied = migrate(connection)
    except psycopg.Error as error:
        raise LedgerError(
            f"the ledger could not be migrated; nothing was done by half: {first_line(error)}"
        ) from None
    return f"applied: {', '.join(applied)}" if applied else "the ledger is up to date; nothing to apply"


def _validate(options: argparse.Namespace) -> str:
    from lifecycle_emails.audience import Audience  # noqa: PLC0415  (not needed by the other commands)
    from lifecycle_emails.campaign import load_campaign  # noqa: PLC0415
    from lifecycle_emails.message import MessageTemplates  # noqa: PLC0415

    names = options.campaign or sorted(file.stem for file in (options.include / "campaigns").glob("*.yaml"))
    if not names:
        raise LifecycleError(
            f"no campaign files in {options.include / 'campaigns'}; name the folder by --include"
        )
    mistakes = []
    for name in names:
        try:
            campaign = load_campaign(options.include, name)
        except LifecycleError as error:
            mistakes.append(str(error))
            continue
        for load in (Audience.load, MessageTemplates.load):
            try:
                load(options.include, campaign)
            except LifecycleError as error:
                mistakes.append(str(error))
    if mistakes:
        raise LifecycleError("\n".join(mistakes))
    return f"no mistakes in {', '.join(names)}"


def _suppress(options: argparse.Namespace) -> str:
    done = _order(options, suppress, user_id=options.user, address=options.address)
    return "suppressed" if done else "was suppressed before; nothing changed"


def _unsuppress(options: argparse.Namespace) -> str:
    done = _order(options, unsuppress, user_id=options.user, address=options.address)
    return "suppression lifted" if done else "there was no such suppression; nothing changed"


def _halt(options: argparse.Namespace) -> str:
    done = _order(options, halt)
    return "sending is halted" if done else "was halted before; nothing changed"


def _resume(options: argparse.Namespace) -> str:
    return "sending goes on" if _order(options, resume) else "there was no such halt; nothing changed"


def _order(options: argparse.Namespace, order: Callable[..., bool], **whom: str | None) -> bool:
    with ledger_session(_connector(options)) as ledger:
        if order in (halt, suppress):
            _check_campaign(ledger, options.campaign)
        return order(
            ledger, **whom, campaign_id=options.campaign, reason=options.reason, actor=_actor(ledger)
        )


def _check_campaign(ledger: LedgerConnection, campaign_id: str | None) -> None:
    """A mistyped id would look as if sending had stopped. Known: planned before, or a file in ./include."""
    known = set(known_campaigns(ledger)) | {file.stem for file in Path("include/campaigns").glob("*.yaml")}
    if campaign_id is not None and campaign_id not in known:
        raise LedgerError(
            f"there is no campaign {campaign_id}; nothing was changed. "
            f"Known: {', '.join(sorted(known)) or 'none'}"
        )


def _actor(ledger: LedgerConnection) -> str:
    """The database role, which the server vouches for, and the login name, which it does not."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        login = f"uid {os.getuid()}"
    return f"{ledger.info.user} (command, {login})"


def _connector(options: argparse.Namespace) -> Callable[[], LedgerConnection]:
    dsn = options.ledger or os.environ.get(DSN_VARIABLE)
    if dsn:
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            # Without its text: the message of the library quotes the part with the password.
            raise LedgerError(
                "the ledger's connection string cannot be read; nothing was changed. Write "
                "postgresql://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded"
            ) from None
        return lambda: psycopg.connect(dsn, autocommit=True)
    from lifecycle_emails.operators.connections import ledger_connector  # noqa: PLC0415  (imports Airflow)

    return ledger_connector(CONNECTION_ID)
