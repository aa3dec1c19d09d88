"""SHA-256 digests of a checkpoint's files, so that a file that has changed on the disk is noticed.

`digests.json` lies in the step folder. It lists the files of its items and has a digest of this list.
Checkpoints without it, of older versions and other programs, are not checked; the metadata of newer ones say
that it belongs to them.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from masktrack_jax.runtime.errors import UserError, one_line
from masktrack_jax.runtime.files import is_inside, sync, whole

NAME = "digests.json"
READERS = 4  # files that are read at once


def write_digests(folder: Path) -> None:
    """Write the digests of all files in the folders of `folder`, which is complete."""
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    with ThreadPoolExecutor(READERS) as readers:
        digests = dict(zip(names, readers.map(digest, files)))
    with whole(folder / NAME) as partial:
        partial.write_text(json.dumps({"sha256": digests, "list": _of_list(digests)}, indent=1))
        sync(partial)


def check_digests(folder: Path, items: Collection[str] = ()) -> None:
    """Compare the files of `items` (default: all) with their digests, if `folder` has digests.

    Raises a UserError that names the first file that differs.
    """
    if not os.path.lexists(folder / NAME):
        return
    listed = {name: value for name, value in _listed(folder) if not items or name.split("/")[0] in items}
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda name: _digest_or_reason(folder / name), listed)
        for (name, wanted), got in zip(listed.items(), found):
            if got != wanted:
                reason = "differs from its digest" if len(got) == len(wanted) else got
                raise UserError(f"{folder}: is damaged ({name} {reason}); use another copy of it")


def digest(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_regular(path: Path) -> None:
    """Raise an OSError if `path` is not a regular file: reading a pipe waits for ever."""
    if os.path.exists(path) and not os.path.isfile(path):  # Orbax's paths call a pipe a file
        raise OSError(errno.EINVAL, "is no file")


def _of_list(digests: dict[str, str]) -> str:
    """The digest of the list of digests, in which a name may change too."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _digest_or_reason(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """The names and digests of a step folder's files."""
    try:
        check_regular(folder / NAME)
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        values = content["sha256"]
        if content["list"] != _of_list(values):
            raise ValueError("differs from its own digest")
        for name, value in values.items():
            if not is_inside(name) or not re.fullmatch(r"[0-9a-f]{64}", value):
                raise ValueError(f"{name!r:.80} has no digest")
            yield name, value
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder}: is damaged ({NAME}: {one_line(error)}); use another copy of it") from None
