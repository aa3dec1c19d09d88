"""What every script does around its work."""

import logging
import sys

from masktrack_jax.errors import UserError


def run(main, *args):
    """Run `main(*args)`; a `UserError` becomes one line on stderr and exit status 1."""
    for library in ("jax", "orbax"):  # what they say at INFO is for their authors
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        return main(*args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
