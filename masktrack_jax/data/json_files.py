"""Read and write the JSON files of data sets and results; all other modules use these functions."""

import codecs
import functools
import gc
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from masktrack_jax.data.labels import LabelsFile, check_labels
from masktrack_jax.data.values import kind_of, shown
from masktrack_jax.runtime.copies import fetched
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import whole

RESULTS_MEMBER = "results.json"  # the file that the servers expect at the root of the zip
# The first bytes of files that are often given instead of JSON, what they are, and the cure.
_OTHER_FILES = {
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"PK\x03\x04": "a zip; unpack it",
    b"\xff\xd8\xff": "a picture; check the path",
    b"\x89PNG": "a picture; check the path",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"7z\xbc\xaf": "packed by 7-Zip; unpack it",
    b"Rar!": "packed by RAR; unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"\x80": "a pickle of Python; write its content as JSON",
    b"<": "a web page or XML; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file with `git lfs pull`",
}
_MUCH = 2**28  # bytes of JSON, which are seldom less than a hundredth when they are packed
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class ResultsFile(NamedTuple):
    """The content of a results file. The tuples name members of a zip, and are empty for a JSON file."""

    content: Any  # a list of tracks if the file is valid
    utf8: bool = True  # in UTF-8 without a byte order mark, the only encoding that the servers read
    found: tuple[str, ...] = ()  # members called results.json; the first one was read
    others: tuple[str, ...] = ()


def read_json(path: str | Path) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark, or in UTF-16 or UTF-32.

    Raises UserError for a file that cannot be read or is not JSON.
    """
    try:
        return _parse(path, _read_bytes(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def read_object(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object but {kind_of(content)}; check the path")
    return content


def read_labels(path: str | Path) -> LabelsFile:
    """Read and check an annotations file in the YouTube-VIS format or in mmtracking's. Raises UserError."""
    return check_labels(read_json(path), path)


def read_results(path: str | Path) -> list[Any]:
    """Read the tracks of a results file, JSON or a zip with results.json, unchecked. Raises UserError."""
    tracks = open_results(path).content
    if not isinstance(tracks, list):
        raise UserError(f"{path}: is not a JSON list of tracks but {kind_of(tracks)}; give the results file")
    return tracks


def open_results(path: str | Path) -> ResultsFile:
    """Read a results file: its JSON content, unchecked, and the members of a zip. Raises UserError."""
    path = fetched(path)
    # A pipe can be read only once, so it is not tested for a zip.
    if path.suffix.lower() != ".zip" and not (path.is_file() and zipfile.is_zipfile(path)):
        try:
            text = _read_bytes(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        return ResultsFile(_parse(path, text), _is_utf8(text))
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = [name for name in names if re.split(r"[/\\]", name)[-1] == RESULTS_MEMBER]
            found = [name for name in found if not name.startswith("__MACOSX")]
            if not found:
                held = ", ".join(names[:5]) or "nothing"
                raise UserError(
                    f"{path}: holds no {RESULTS_MEMBER} (it holds {held:.200}); zip that file alone"
                )
            member = min(found, key=len)
            entry = archive.getinfo(member)
            # These two keep to the size that the zip states.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{path}: {member} is not packed by the usual method, deflate; zip it again")
            packed, unpacked = entry.compress_size, entry.file_size
            if unpacked > max(_MUCH, 100 * packed):
                raise UserError(
                    f"{path}: {packed} bytes would unpack to {unpacked}; zip {RESULTS_MEMBER} again"
                )
            text = archive.read(member)
    except UserError:
        raise
    except Exception as error:  # a damaged zip raises many types
        if isinstance(error, OSError) and error.strerror:
            raise _unreadable(path, error) from None
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be unpacked ({reason:.200}); zip {RESULTS_MEMBER} again") from None
    found.sort(key=lambda name: name != member)
    others = tuple(name for name in names if name not in found)
    return ResultsFile(_parse(f"{path}:{member}", text), _is_utf8(text), tuple(found), others)


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises UserError."""
    try:
        text = _read_bytes(path)
        return text.decode("utf-16" if text.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def write_json(path: str | Path, content: object, indent: int | None) -> None:
    """Write JSON atomically: readers see the old file or the new one. Raises UserError.

    Bytes are written as text, and NumPy scalars as numbers.
    """
    try:
        # Not `dump`, which is slower: only `dumps` runs in C.
        text = json.dumps(content, indent=indent, allow_nan=False, default=_plain)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not written, the content is not JSON ({error})") from error
    write_text(path, text)


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically: readers see the old file or the new one. Raises UserError.

    Half surrogates, which UTF-8 cannot hold, are written as escapes.
    """
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _read_bytes(path: str | Path) -> bytes:
    """The bytes of a file or a pipe. A device such as /dev/zero has no end."""
    path = fetched(path)
    if path.is_char_device() or path.is_block_device():
        raise ValueError("is a device")
    return path.read_bytes()


def _unreadable(path: str | Path, error: OSError | ValueError) -> UserError:
    """The UserError for a path that cannot be opened; a ValueError means that the path itself is invalid."""
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(f"{path}: cannot be read ({reason}); check the path")


def _parse(path: str | Path, text: bytes) -> Any:
    collecting = gc.isenabled()
    gc.disable()  # the garbage collector would scan millions of new objects for nothing
    try:
        return json.loads(text, object_pairs_hook=functools.partial(_object, path))
    except json.JSONDecodeError as error:
        _refuse_other_files(path, text)
        where = f"line {error.lineno} column {error.colno}"
        raise UserError(f"{path}: is not valid JSON at {where} ({error.msg}); correct the file") from None
    except UnicodeDecodeError:
        _refuse_other_files(path, text)
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except (RecursionError, ValueError) as error:  # lists a thousand deep; a number of a thousand digits
        reason = str(error).partition(":")[0]  # then comes advice on Python
        raise UserError(f"{path}: is not JSON that can be read ({reason}); correct the file") from None
    finally:
        if collecting:
            gc.enable()


def _object(path: str | Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises a UserError if a key would replace an earlier one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UserError(f"{path}: has the key {shown(twice)} twice in one object; keep one of them")
    return found


def _refuse_other_files(path: str | Path, text: bytes) -> None:
    """Raise a UserError that names what is in the file, if it is known."""
    if not text.strip(b"\0 \t\r\n"):
        raise UserError(f"{path}: is empty; copy or write it again") from None
    for start, kind in _OTHER_FILES.items():
        if text.startswith(start):
            raise UserError(f"{path}: is not JSON but {kind}") from None


def _is_utf8(text: bytes) -> bool:
    return json.detect_encoding(text) == "utf-8"


def _plain(value: Any) -> object:
    """Convert the bytes of an RLE and NumPy scalars to JSON types."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")
