"""Errors that a person can act on."""

import sys


class UserError(Exception):
    """Bad input. The message is one line that names the file, record or config key and what to do."""


def exit_with_message(main, *args):
    """Run `main(*args)`; a `UserError` becomes one line on stderr and exit status 1."""
    try:
        return main(*args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
