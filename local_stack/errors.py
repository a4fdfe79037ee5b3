"""The local stack's own error."""


class StackError(Exception):
    """A part of the local stack cannot run; the message says what happened and what to do about it."""
