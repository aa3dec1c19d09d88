"""Standard output and error: every text can be printed, and a reader may stop before the end."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

from masktrack_jax.runtime.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def usable_streams() -> Iterator[None]:
    """Print any text in the block, whatever the encoding of the terminal, and write it out at its end.

    Characters that the encoding lacks are escaped. If the reader of a pipe has left, as `head` does, the
    process ends without a word, as from SIGPIPE. Raises a UserError if the output cannot be written.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]  # None if it is closed
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) and any(map(_reader_has_left, streams)):
            _discard(streams)
            sys.exit(128 + signal.SIGPIPE)
        if error.filename is not None or error.errno not in _FULL:
            raise
        _discard(streams)
        reason = f"{error.strerror}; free space, or send standard output elsewhere"
        raise UserError(f"the output cannot be written: {reason}") from None


def _reader_has_left(stream: TextIO) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a stream without a file
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return bool(poll.poll(0))  # only errors are reported
    return False


def _cannot_be_written(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return True
    return False


def _discard(streams: list[TextIO]) -> None:
    """Give up what these streams still hold, so that Python does not fail to write it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if _reader_has_left(stream) or _cannot_be_written(stream):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
