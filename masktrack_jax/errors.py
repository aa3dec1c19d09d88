"""Errors that a person can act on."""

from pathlib import Path


class UserError(Exception):
    """Bad input. The message is one line that names the file, record or config key and what to do."""


def make_folder(path):
    """`path` as a Path, made if need be and tried for writing."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written to ({error.strerror}); give another folder") from None
    return path
