"""The package's own errors.

Every message says what happened, where (file and field, connection, user id), and what to do about it.
No message ever holds an e-mail address or a credential: messages end up in logs that many people read.
"""


class LifecycleError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(LifecycleError):
    """A campaign file, frequency cap, template or audience text is wrong; mend the file it names."""


class SourceError(LifecycleError):
    """The audience query cannot be run, or does not return what it must."""


class LedgerError(LifecycleError):
    """The ledger is unreachable, not migrated, or refuses what was asked of it."""


class DeliveryError(LifecycleError):
    """The SMTP server cannot be used as configured: no connection, no TLS, no login."""


class InvalidAddress(LifecycleError):
    """A recipient is not exactly one usable e-mail address; the message never repeats it."""


class RenderFailed(LifecycleError):
    """One user's message cannot be rendered; the message names template and variable, never values."""
