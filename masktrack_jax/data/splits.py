"""The splits of a configuration: the videos to train on and the videos to evaluate on.

`data.root` names a folder with data sets in any supported layout. The keys `data.train_annotations`, … name
files and override it. `data.holdout` reserves some of the training videos for evaluation.
"""

import pathlib
import zlib
from collections.abc import Collection

from ml_collections import ConfigDict

from masktrack_jax.data.json_files import read_labels, read_text
from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.data.layouts import SplitFiles, find_dataset, find_split
from masktrack_jax.data.split_files import read_unpacked, summary_line
from masktrack_jax.data.values import Id
from masktrack_jax.data.vis import Video, VisDataset, read_vis
from masktrack_jax.runtime.copies import local
from masktrack_jax.runtime.errors import UserError, printable

TENTH = "tenth"
NO_SPLIT = (  # the advice if there is none to evaluate
    f"; set data.holdout={TENTH} to evaluate a part of the training videos, or data.val_split= for none"
)


def training_split(config: ConfigDict) -> VisDataset:
    """The training videos that are not held out; prints a summary."""
    data = config.data
    dataset = _training_videos(data)
    if not dataset.labelled:
        raise UserError(f"{dataset.annotations_path}: has no labels, so there is nothing to train on")
    if data.holdout:
        held = {video.id for video in held_out(dataset, data.holdout)}
        dataset = dataset.only([video for video in dataset.videos if video.id not in held])
        if not dataset.videos:
            raise UserError(f"config.data.holdout={data.holdout}: leaves no video to train on")
    print(f"training on {summary_line(dataset)}")
    if dataset.left_out.notes:
        print(printable(f"note: {dataset.annotations_path}: {dataset.left_out.summary()}"))
    return dataset


def validation_split(config: ConfigDict) -> VisDataset | None:
    """The videos to evaluate, or None if `config` names none; prints a summary.

    These are the held out training videos if `data.holdout` is set, else the split `data.val_split`.
    """
    data = config.data
    if data.holdout:
        dataset = _training_videos(data)
        dataset = dataset.only(held_out(dataset, data.holdout))
        print(f"evaluating held out ({data.holdout}) {summary_line(dataset)}")
        return dataset
    if data.val_annotations:
        dataset = read_vis(local(data.val_annotations), local(data.val_frames) or None)
    elif data.root and data.val_split:
        dataset = read_split(_find(data, data.val_split, NO_SPLIT))
    else:
        return None
    print(f"evaluating {summary_line(dataset)}")
    if not dataset.labelled:
        line = (
            f"{dataset.annotations_path}: has no labels, so there will be a submission for its server and no "
            f"scores; for scores, evaluate a part of the training videos (data.holdout={TENTH!r})"
        )
        print(printable(line))
    return dataset


def read_split(files: SplitFiles) -> VisDataset:
    """Read a split, packed or not; its frames must exist. Raises UserError."""
    if files.packed:
        from masktrack_jax.data.pack.read import read_packed

        return read_packed(files)
    return read_unpacked(files)


def held_out(dataset: VisDataset, holdout: str) -> list[Video]:
    """The videos of a training split that are reserved for evaluation, in the file's order.

    holdout: "tenth" or the path of a text file. "tenth" selects the videos whose folder name has a CRC-32
        divisible by 10. That is about a tenth, and does not depend on the order or ids in the file. A text
        file has the name or id of one video per line; empty lines and lines that begin with # are skipped.
    """
    if holdout == TENTH:
        found = [video for video in dataset.videos if zlib.crc32(folder_name(video).encode()) % 10 == 0]
        if not found:
            raise UserError(
                f"config.data.holdout={TENTH}: selects none of the {len(dataset.videos)} videos of "
                f"{dataset.annotations_path}; name some in a file"
            )
        return found
    wanted = _listed(pathlib.Path(local(holdout)), dataset)
    return [video for video in dataset.videos if video.id in wanted]


def folder_name(video: Video) -> str:
    """The folder of a video's frames as in the file; the video's name if they are in no folder."""
    folder = str(pathlib.PurePosixPath(video.file_names[0]).parent)
    return video.name if folder == "." else folder


def _listed(path: pathlib.Path, dataset: VisDataset) -> set[Id]:
    """The ids of the videos listed in a text file."""
    try:
        lines = read_text(path).splitlines()
    except UserError as error:
        raise UserError(
            f"config.data.holdout: {error}; give {TENTH!r} or a file with one video name per line"
        ) from None
    ids = {str(video.id): video.id for video in dataset.videos}
    for video in dataset.videos:  # a name overrides an equal id
        ids |= {video.name: video.id, folder_name(video): video.id}
    found: set[Id] = set()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            if line not in ids:
                raise UserError(
                    f"{path}: line {number}: {line!r} is not a video of {dataset.annotations_path}; "
                    "correct it"
                )
            found.add(ids[line])
    if not found:
        raise UserError(f"{path}: names no video; give one per line")
    return found


def ground_truth(dataset: VisDataset, category_ids: Collection[int]) -> LabelsFile:
    """The labels of `dataset`'s videos in these categories, from the file that it was read from."""
    videos = {video.id for video in dataset.videos}
    return read_labels(dataset.annotations_path).only(videos, category_ids)


def _training_videos(data: ConfigDict) -> VisDataset:
    """All training videos, held out or not."""
    if data.train_annotations:
        return read_vis(local(data.train_annotations), local(data.train_frames) or None)
    return read_split(_find(data, "train"))


def _find(data: ConfigDict, split: str, advice: str = "") -> SplitFiles:
    return find_split(find_dataset(data.root, data.name), split, advice)
