"""Read packed data sets (see `data.pack`): frames from ArrayRecord, without TensorFlow.

The form of a record and the names of the files are fixed here. TFDS would take both from features.json and
dataset_info.json, and import the classes that they name. A data set must not choose code, so these two files
are never read.
"""

import dataclasses
import fnmatch
import hashlib
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from masktrack_jax.data.json_files import read_text
from masktrack_jax.data.layouts import PACKED_DIGESTS, SplitFiles
from masktrack_jax.data.vis import Video, VisDataset, read_vis
from masktrack_jax.runtime.copies import fetched, fetched_files, is_file, names
from masktrack_jax.runtime.errors import UserError, one_line, printable


class Frame(NamedTuple):
    """The part of a record that is read; the labels are read from the annotations file."""

    file_name: str
    image: bytes


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
            found = _parse(self._source[self._first[video.id] + frame])
        except Exception as error:  # ArrayRecord, its threads and protobuf raise many kinds
            reason = one_line(error)
            raise UserError(f"{self._folder}: {name} cannot be read ({reason}); pack it again") from None
        if found.file_name != name:
            theirs = one_line(found.file_name)
            raise UserError(f"{self._folder}: holds {theirs} instead of {name}; pack it again")
        return io.BytesIO(found.image)


def read_packed(files: SplitFiles) -> VisDataset:
    """The data set of a packed split."""
    (folder,) = files.frames
    dataset = read_vis(files.annotations, folder)
    _note_changes(files.annotations, folder / PACKED_DIGESTS)
    return dataclasses.replace(dataset, packed=PackedFrames(folder, files.split, dataset.videos))


def _note_changes(annotations: pathlib.Path, digests: pathlib.Path) -> None:
    """Print a note if the annotations are not those that were packed; older sets have no digests."""
    if not is_file(digests):
        return
    with open(fetched(annotations), "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if f"{found}  {annotations.name}" not in read_text(digests).splitlines():
        line = f"note: {annotations}: has changed since it was packed, or is damaged; see {digests.name}"
        print(printable(line))


def _open_source(folder: pathlib.Path, split: str) -> ArrayRecordDataSource:
    """The records of a split."""
    try:
        paths = list(_shards(folder, split))
        fetched_files(paths, f"{split} frames")
        return ArrayRecordDataSource([str(path) for path in paths])
    except UserError:
        raise
    except Exception as error:  # ArrayRecord raises many kinds
        raise UserError(
            f"{folder}: cannot be read as a packed data set ({one_line(error)}); pack it again"
        ) from None


def _shards(folder: pathlib.Path, split: str) -> Iterator[pathlib.Path]:
    """Yield the paths of a split's records. The name of the first file states how many there are."""
    form = f"vis_frames-{split}.array_record-{{:05d}}-of-{{}}"
    firsts = fnmatch.filter(names(folder), form.format(0, "*"))
    if len(firsts) != 1:
        raise ValueError(f"{len(firsts)} files are named {form.format(0, '*')}, not one")
    count = firsts[0].rpartition("-")[2]
    for shard in range(int(count)):
        path = folder / form.format(shard, count)
        if not is_file(path):
            raise ValueError(f"{path.name} is missing")
        yield path


def _parse(record: bytes) -> Frame:
    """The fields of a record, a serialised tf.train.Example."""
    fields = tf_example_pb2.Example.FromString(record).features.feature
    (name,), (image,) = (fields[key].bytes_list.value for key in ("file_name", "image"))
    return Frame(name.decode(errors="surrogateescape"), image)
