"""The base configuration of every experiment, and its checks."""

# ruff: noqa: RUF009 – `option` makes a dataclass field, and the sections are frozen

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from absl import flags
from ml_collections import ConfigDict, config_flags

from masktrack_jax.config.data import DataOptions, replace_files
from masktrack_jax.config.inference import InferenceOptions, validate_inference
from masktrack_jax.config.model import ModelOptions, validate_model
from masktrack_jax.config.training import (
    OptimizerOptions,
    TrainOptions,
    check_effects,
    replace_length,
    validate_training,
)
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import Check, between, check_options, check_types, option, require
from masktrack_jax.runtime.suggest import nearest_key


@dataclass(frozen=True)
class Config:
    """MaskTrack R-CNN R50-FPN with mmtracking's values."""

    seed: int = option(0, "seed of all random numbers", between(0, 2**63 - 1))
    model: ModelOptions = option(ModelOptions())
    data: DataOptions = option(DataOptions())
    train: TrainOptions = option(TrainOptions())
    optimizer: OptimizerOptions = option(OptimizerOptions())
    inference: InferenceOptions = option(InferenceOptions())


def base_config() -> ConfigDict:
    """The values of `Config`; a file in `configs/` sets the values that differ."""
    return ConfigDict(asdict(Config()))


def require_loaded(config: ConfigDict) -> None:
    """Raise a UserError if the file given by --config could not be read, or gives no config."""
    try:
        _ = config.model
    except OSError as error:  # config_flags reports the errors of a file at its first use
        problem = str(error).rsplit("] ", 1)[-1]
        raise UserError(f"{' '.join(problem.split())}; check --config") from None
    except Exception as error:  # the file is Python and can raise anything
        kind = type(error).__name__
        raise UserError(f"--config: the file gives no config ({kind}: {error}); correct it") from None
    known, there = set(_keys(base_config())), set(_keys(config))
    for key in sorted(known - there):
        raise UserError(f"config.{key}: is missing; change the values of base_config() one by one")


def obey_flags(config: ConfigDict) -> ConfigDict:
    """Give keys of the flags --config.KEY precedence over what the config file sets instead; return `config`.

    Prints what they replace. Raises a UserError for a key that would have no effect.
    """
    require_loaded(config)
    given = config_flags.get_override_values(flags.FLAGS["config"])
    for line in (*replace_files(config.data, given), *replace_length(config.train, given)):
        print(line)
    check_effects(config, given)
    return config


def validate(config: ConfigDict) -> ConfigDict:
    """Check `config` and return it; raises a UserError that names a key with an invalid value."""
    require_loaded(config)
    _refuse_unknown_keys(config)
    model, train = config.model, config.train
    check_options(Config(), config, "config.")
    check_types(Config(), config, "config.")
    validate_model(model)
    validate_training(train)
    validate_inference(config.inference)
    labels = Check(lambda file: file or config.data.root, "name the training annotations file, or data.root")
    require(config.data.train_annotations, labels, "config.data.train_annotations")
    neck = Check(lambda only: model.neck != "none" or "fpn" not in only.split(","), "there is no fpn")
    require(train.only, neck, "config.train.only")
    DataOptions.from_config(config.data)
    return config


def _refuse_unknown_keys(config: ConfigDict) -> None:
    """Raise a UserError for a key that only a config file has: nothing would read it."""
    known = list(_keys(base_config()))
    for key in _keys(config):
        if key not in known:
            near = nearest_key(key, known)
            raise UserError(
                f"config.{key}: there is no such key; {f'did you mean {near}?' if near else 'delete it'}"
            )


def _keys(section: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        key = f"{prefix}{name}"
        yield from _keys(value, f"{key}.") if isinstance(value, ConfigDict) else [key]
