"""Packed data sets (see `data.pack`): their frames from ArrayRecord, through TFDS but without TensorFlow."""

import dataclasses
import io
import itertools

from masktrack_jax.data.vis import read_vis
from masktrack_jax.runtime.errors import UserError


class PackedFrames:
    """The encoded frames of a packed split. Threads may share it, and it may be sent to processes."""

    def __init__(self, folder, split, videos):
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

    def open(self, video, frame):
        """A file with the bytes of frame `frame` (from 0) of a video, as they were packed."""
        name = video.file_names[frame]
        try:
            record = self._source[self._first[video.id] + frame]
        except Exception as error:  # ArrayRecord and its threads have many of their own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self._folder}: {name} cannot be read ({reason}); pack it again") from None
        if record["file_name"].decode() != name:
            raise UserError(
                f"{self._folder}: holds {record['file_name'].decode()} in the place of {name}; pack it again"
            )
        return io.BytesIO(record["image"])


def read_packed(files):
    """`VisDataset` of a packed split (`layouts.SplitFiles`)."""
    (folder,) = files.frames
    dataset = read_vis(files.annotations, folder)
    return dataclasses.replace(dataset, packed=PackedFrames(folder, files.split, dataset.videos))


def _open_source(folder, split):
    """The records of a split: a sequence of dicts, images as bytes."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        for path in builder.info.splits[split].filepaths:
            open(path, "rb").close()  # ArrayRecord would look for it at the first read only
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # TFDS and ArrayRecord have many of their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: cannot be read as a packed data set ({reason}); pack it again") from None
