"""List every key of a config with its value and comment (`train.py --print_config`)."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from masktrack_jax.config.base import Config, require_loaded
from masktrack_jax.runtime.options import entries, value_at

WIDEST = 24  # columns of the values; longer ones push their comment to the right


def config_keys() -> list[str]:
    """The dotted keys of a config, in its order."""
    return [entry.key for entry in entries(Config())]


def config_lines(config: ConfigDict) -> Iterator[str]:
    """A line for each key of `config`: a star if its value is not the default, key, value and comment."""
    require_loaded(config)
    listed = list(entries(Config()))
    widest = max(len(entry.key) for entry in listed)
    yield "# * differs from the default in masktrack_jax/config; change a value with --config.KEY=VALUE"
    for entry in listed:
        value = value_at(config, entry.key)
        choices = (
            f" [{', '.join(map(str, entry.check.choices))}]" if entry.check and entry.check.choices else ""
        )
        star = " " if value == entry.default else "*"
        yield f"{star} {entry.key:{widest}}  {value!r:{WIDEST}}  {entry.comment}{choices}".rstrip()
