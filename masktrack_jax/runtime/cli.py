"""Start-up code shared by all commands: flags and one-line errors."""

import contextlib
import errno
import logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from masktrack_jax.runtime import memory, signals
from masktrack_jax.runtime.cache import check_cache, keep_programs
from masktrack_jax.runtime.errors import UserError, one_line, printable
from masktrack_jax.runtime.streams import usable_streams
from masktrack_jax.runtime.suggest import nearest_key

T = TypeVar("T")
# The type that a flag needs, by the start of the parser's message.
TYPES = {"Non-bool": "True or False", "invalid literal for int": "an integer", "could not": "a number"}
WRONG_TYPE = re.compile(rf"flag --([\w.]+)=(.*): \W*({'|'.join(TYPES)})")
# Errors that come from the path, not from this code: `Path.exists` and others raise them too.
PATH_FAULTS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ESTALE)
ALL_KEYS = "train.py --config FILE --print_config lists them all"


def launch(main: Callable[[Sequence[str]], Any], keys: Callable[[], Collection[str]] = tuple) -> None:
    """Parse the absl flags and run `main(argv)`; errors become one line (see `run`).

    `keys()` returns the keys that --config may have, for suggestions.
    """
    signals.watch()
    keep_programs()
    check_cache()
    app.run(lambda argv: run(main, argv), flags_parser=lambda argv: run(parse_flags, argv, keys))


def parse_flags(argv: Sequence[str], keys: Callable[[], Collection[str]] = tuple) -> list[str]:
    """Parse the command line; dashes in a flag's name are read as underscores (--score-threshold).

    Raises a UserError for an unknown flag, a value of the wrong type, an unreadable config file, an unknown
    config key, or an argument that is not a flag.
    """
    spelled = [re.sub(r"(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word) for word in argv]
    before = {name: flags.FLAGS[name].present for name in flags.FLAGS}
    with _flag_errors(spelled, keys, ALL_KEYS):
        rest = flags.FLAGS(spelled)
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if isinstance(flag.value, float) and not math.isfinite(flag.value):  # `nan` passes every comparison
            raise UserError(f"--{name}: is {flag.value}; must be a finite number")
        if (times := flag.present - before.get(name, 0)) > 1 and not (flag.boolean or "." in name):
            raise UserError(f"--{name}: is given {times} times, and only the last one counts; give one")
    if len(rest) > 1:  # absl stops there
        raise UserError(f"{rest[1]}: is not a flag, so the flags after it are not read; see --help")
    return rest


def define_config(values: dict[str, Any], text: str) -> Callable[[], dict[str, Any]]:
    """Define flags --config.KEY for the keys of `values`; returns a function that returns the changed values.

    Raises a UserError for unknown keys, because ml_collections already reads the command line here.
    """
    keys = list(_dotted(values))
    hint = f"only {' and '.join(f'config.{_common(name, keys)}' for name in values)} can be set here"
    with _flag_errors(sys.argv, lambda: keys, hint):
        config_flags.DEFINE_config_dict("config", ConfigDict(values), text)
    return lambda: config_flags.get_override_values(flags.FLAGS["config"])


def _dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        yield from _dotted(value, f"{key}.") if isinstance(value, dict) else [key]


def _common(section: str, keys: Collection[str]) -> str:
    """The name of the section, or its key if it has only one."""
    inside = [key for key in keys if key.startswith(f"{section}.")]
    return inside[0] if len(inside) == 1 else section


@contextlib.contextmanager
def _flag_errors(argv: Sequence[str], keys: Callable[[], Collection[str]], hint: str) -> Iterator[None]:
    """Turn the errors of absl, ml_collections and the config file about a flag into a UserError."""
    try:
        yield
    except Exception as error:
        if line := _line_of_config_file(error, argv):
            problem = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"{line}: {problem:.300}; correct the config file") from None
        if "no attribute 'get_config'" in str(error):
            raise UserError("--config: the file has no get_config(); give one of configs/") from None
        if isinstance(error, AttributeError | KeyError):  # ml_collections raises these for an unknown key
            key = _unknown_key(str(error.args[0]), argv, keys())
            near = nearest_key(key, keys())
            advice = f"did you mean {near}?" if near else hint
            raise UserError(f"the config has no key {key}; {advice}") from None
        if found := WRONG_TYPE.match(str(error)):
            key, value, reason = found.groups()
            raise UserError(f"{key}: is {value!r}; must be {TYPES[reason]}") from None
        if isinstance(error, OSError) and error.filename is None:  # of the output: --help is printed here
            raise
        if isinstance(error, flags.Error | OSError | TypeError | ValueError):
            raise UserError(f"{one_line(error, 300)}; see --help") from None
        raise


def _line_of_config_file(error: Exception, argv: Sequence[str]) -> str:
    """FILE: line N, if the file given by --config raised the error; else empty."""
    named = re.search(r"(?:^|\0)--?config[=\0]([^\0:]+)", "\0".join(argv))
    text = "".join(traceback.format_exception(error))
    name = re.escape(Path(named[1]).name) if named else ""
    lines = re.findall(rf'File "[^"\n]*\b{name}", line (\d+)', text) if name else []
    return f"{named[1]}: line {lines[-1]}" if named and lines else ""


def _unknown_key(message: str, argv: Sequence[str], known: Collection[str]) -> str:
    """The dotted key on the command line that caused an error of ml_collections.

    The error message contains only a part of the key.
    """
    part = re.search(r"[\w.]+", message)
    given = [found[1] for word in argv if (found := re.match(r"--?(?:no)?config\.([\w.]+)", word))]
    unknown = [key for key in given if key not in known]
    named = [key for key in unknown if part and part[0] in key.split(".")]
    return (named or unknown or [part[0] if part else "?"])[0]


def run(main: Callable[..., T], *args: Any) -> T:
    """Run `main(*args)`; its errors that users can mend become one line on stderr and exit status 1.

    These are a `UserError`, a lack of memory, and a path that the system refuses.
    See `usable_streams` for what is printed.
    """
    for library in ("jax", "orbax"):  # their INFO messages do not concern users
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        with usable_streams():
            return main(*args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        signals.end_soon(1)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not (reason := memory.shortage(error) or _fault_of_path(error)):
            raise
        print(f"error: {reason}", file=sys.stderr)
        signals.end_soon(1)
        sys.exit(1)


def _fault_of_path(error: Exception) -> str:
    """The line for a path that the system refuses; empty for other errors."""
    if not isinstance(error, OSError) or error.filename is None or error.errno not in PATH_FAULTS:
        return ""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
    return printable(f"{name}: {error.strerror}; give another path, or change its permissions")


def command(main: Callable[[], Any]) -> None:
    """`run` the `main` of a command without absl flags. SIGTERM ends it like Ctrl-C and removes its files."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(signals.exit_status(number)))
    run(main)
