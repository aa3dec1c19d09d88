"""Errors that a person can act on."""


class UserError(Exception):
    """Bad input. The message is one line that names the file, record or config key, and the cure."""
