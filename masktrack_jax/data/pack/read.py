"""Read packed data sets (see `data.pack`): frames from ArrayRecord, through TFDS but without TensorFlow."""

import dataclasses
import io
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from masktrack_jax.data.layouts import SplitFiles
from masktrack_jax.data.vis import Video, VisDataset, read_vis
from masktrack_jax.runtime.errors import UserError


class PackedFrames:
    """The encoded frames of a packed split; thread-safe and picklable."""

    def __init__(self, folder: pathlib.Path, split: str, videos: Sequence[Video]) -> None:
        self._folder = folder
        self._source = _open_source(folder, split)
        lengths = [video.length for video in videos]
        starts = itertools.accumulate(lengths, initial=0)
        self._first = {video.id: start for video, start in zip(videos, starts)}
        if len(self._source) != sum(lengths):
            raise UserError(
                f"{folder}: holds {len(self._source)} {split} frames but its annotations name "
                f"{sum(lengths)}; pack it again"
            )

    def open(self, video: Video, frame: int) -> io.BytesIO:
        """A file object with the packed bytes of frame `frame` (from 0) of a video."""
        name = video.file_names[frame]
        try:
            record = self._source[self._first[video.id] + frame]
        except Exception as error:  # ArrayRecord and its threads raise many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self._folder}: {name} cannot be read ({reason}); pack it again") from None
        if record["file_name"].decode() != name:
            raise UserError(
                f"{self._folder}: holds {record['file_name'].decode()} instead of {name}; pack it again"
            )
        return io.BytesIO(record["image"])


def read_packed(files: SplitFiles) -> VisDataset:
    """The data set of a packed split."""
    (folder,) = files.frames
    dataset = read_vis(files.annotations, folder)
    return dataclasses.replace(dataset, packed=PackedFrames(folder, files.split, dataset.videos))


def _open_source(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
    """The records of a split, with images as bytes."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        for path in builder.info.splits[split].filepaths:
            open(path, "rb").close()  # ArrayRecord would open it only at the first read
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # TFDS and ArrayRecord raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: cannot be read as a packed data set ({reason}); pack it again") from None
