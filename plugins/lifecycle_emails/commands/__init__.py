"""What a person does to the ledger from a terminal: one module for each topic, all of them named here.

A topic's module has ``add(commands)``, which describes its commands to argparse, and for each command a
function of its options and of how to open the ledger, which returns the text to print. Must not hold SQL or
rules: a command calls one function of the core.
"""

from lifecycle_emails.commands import (
    actions,
    dry_run,
    extend,
    halt,
    migrate,
    preview,
    release,
    restored,
    send_test,
    settle,
    suppress,
    validate,
    why,
)

TOPICS = (
    migrate,
    validate,
    preview,
    dry_run,
    why,
    suppress,
    halt,
    settle,
    release,
    extend,
    restored,
    send_test,
    actions,
)
"""In the order in which ``lifecycle --help`` lists them."""
