"""The `data` section: where the data sets are, and how training pairs are made from them."""

from dataclasses import dataclass

from masktrack_jax.data.options import PairOptions
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
