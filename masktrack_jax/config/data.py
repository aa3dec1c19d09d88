"""The `data` section: where the data sets are, and how training pairs are made from them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ml_collections import ConfigDict

from masktrack_jax.data.options import PairOptions
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import at_least, one_of, option


@dataclass(frozen=True)
class DataOptions(PairOptions):
    """The location of the data sets, as a root folder or as files, and the options of pairs.

    `root` may hold one or several data sets, in any layout of `data.layouts` or packed (`data.pack`).
    Annotations files named here take precedence over those found below it.
    """

    root: str = option("", "folder of one or several data sets")
    name: str = option(
        "", "data set to use if root has several: youtubevis2019, …2021, …2022, ovis, or its folder's name"
    )
    val_split: str = option("valid", "split to evaluate; empty: none", one_of("valid", "test", ""))
    holdout: str = option("", 'training videos to evaluate on instead: "tenth", or a file of names or ids')
    train_annotations: str = option("", "file of the training labels, instead of the one below root")
    train_frames: str = option("", "folder of its frames; empty: JPEGImages beside it")
    val_annotations: str = option("", "file of the validation labels, instead of the one below root")
    val_frames: str = option("", "folder of its frames; empty: JPEGImages beside it")
    workers: int = option(0, "processes that load pairs; 0: the training process", at_least(0))
    timeout: int = option(300, "seconds to wait for a batch before the run is saved and ended", at_least(1))
    on_error: str = option(
        "stop",
        "if a frame cannot be read; skip: use another pair",
        one_of("stop", "skip"),
    )


def replace_files(data: ConfigDict, given: Collection[str]) -> Iterator[str]:
    """Let keys of `data` given on the command line replace the files that the config file names.

    given: the dotted keys of the whole config that were given. Yields a line for each file that is replaced.
    Raises a UserError for a given key that would have no effect.
    """
    told = {key.removeprefix("data.") for key in given if key.startswith("data.")}
    for files, instead in (("train", {"root"}), ("val", {"root", "val_split", "holdout"})):
        key = f"{files}_annotations"
        if data[key] and told & instead and key not in told:
            yield f"config.data.{key}={data[key]} gives way to config.data.{min(told & instead)}"
            data.update({key: "", f"{files}_frames": data[f"{files}_frames"] * (f"{files}_frames" in told)})
    from_root = not data.train_annotations or not (data.val_annotations or data.holdout or not data.val_split)
    needs = {
        "root": (from_root, "data.train_annotations and data.val_annotations name files"),
        "name": (data.root and from_root, "no data set is searched below data.root"),
        "train_frames": (data.train_annotations, "data.train_annotations is empty"),
        "val_frames": (data.val_annotations and not data.holdout, "data.val_annotations is not read"),
        "val_annotations": (not data.holdout, "data.holdout selects the videos to evaluate"),
        "val_split": (
            data.root and not data.val_annotations and not data.holdout,
            "the videos to evaluate are not below data.root",
        ),
    }
    for key, (has_effect, reason) in needs.items():
        if key in told and data[key] and not has_effect:
            raise UserError(f"config.data.{key}: {data[key]!r} has no effect, since {reason}; leave one out")
