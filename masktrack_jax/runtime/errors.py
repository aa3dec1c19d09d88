"""The exception for problems that the user can fix."""


class UserError(Exception):
    """Invalid input. The one-line message names the file, record or config key, and says how to fix it."""
