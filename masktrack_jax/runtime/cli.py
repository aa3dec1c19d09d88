"""What every script does around its work."""

import contextlib
import logging
import os
import re
import sys
import zlib
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from masktrack_jax.runtime.errors import UserError


def launch(main):
    """Parse the absl flags and run `main(argv)`; whatever is wrong becomes one line (see `run`)."""
    keep_programs()
    app.run(lambda argv: run(main, argv), flags_parser=lambda argv: run(parse_flags, argv))


def keep_programs(environment=os.environ):
    """Have JAX keep what it compiles, so that a second start need not compile it again.

    In `MASKTRACK_CACHE`, by default masktrack_jax in the user's cache folder; "off" keeps nothing. Where
    JAX's own `JAX_COMPILATION_CACHE_DIR` is set, that holds. To be called before JAX is imported.
    """
    usual = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "masktrack_jax"
    folder = environment.get("MASKTRACK_CACHE") or str(usual)
    if folder != "off" and "JAX_COMPILATION_CACHE_DIR" not in environment:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder).expanduser() / _machine())
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def _machine():
    """A name for this kind of processor: programs made for another may not run, and homes are shared."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "any"
    kind = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    return f"{zlib.crc32(''.join(kind).encode()):08x}"


def parse_flags(argv):
    """Parse the command line; --score-threshold is as good as --score_threshold.

    Raises a UserError for unknown flags, values of the wrong type, a config file that cannot be read, and
    config keys that do not exist.
    """
    spelled = [re.sub(r"(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word) for word in argv]
    with _flag_errors("masktrack_jax/config/base.py has them all"):
        return flags.FLAGS(spelled)


def define_config(values, text):
    """Define flags --config.KEY for the keys of the dict `values`; returns a function that tells the changes.

    Raises a UserError for keys that do not exist: ml_collections looks at the command line already here.
    """
    with _flag_errors(f"here only {', '.join(f'config.{name}' for name in values)} can be set"):
        config_flags.DEFINE_config_dict("config", ConfigDict(values), text)
    return lambda: config_flags.get_override_values(flags.FLAGS["config"])


@contextlib.contextmanager
def _flag_errors(hint):
    """Turn what absl and ml_collections say of a bad flag into a UserError."""
    try:
        yield
    except (AttributeError, KeyError) as error:  # of ml_collections: the key and, it may be, one like it
        said = str(error.args[0])
        key, near = re.search(r"[\w.]+", said)[0], re.search(r'Did you mean "(\w+)"', said)
        guess = f", but {near[1]}" if near else ""
        raise UserError(f"the config has no key {key}{guess}; {hint}") from None
    except (flags.Error, OSError, TypeError, ValueError) as error:
        raise UserError(f"{_one_line(error)}; see --help") from None


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


def _one_line(error):
    return " ".join(str(error).split())[:300]
