"""The splits that a configuration names, read: what is trained on and what is evaluated.

`data.root` names a folder with data sets in any usual layout; the keys `data.train_annotations`, … name
files, which go before it. `data.holdout` takes some of the training videos out for evaluation.
"""

import dataclasses
import functools
import pathlib
import zlib

from masktrack_jax.data.cocovid import from_cocovid, is_cocovid
from masktrack_jax.data.layouts import choose_frames, find_dataset, find_split
from masktrack_jax.data.vis import file_error, read_vis
from masktrack_jax.evaluation.results import read_ground_truth
from masktrack_jax.runtime.errors import UserError

TENTH = "tenth"


def training_split(config):
    """The training videos of `config`, a `VisDataset`: those that are not held out. Says what they are."""
    data = config.data
    dataset = _training_videos(data)
    if not dataset.labelled:
        raise UserError(f"{dataset.annotations_path}: has no labels, and so nothing to train on")
    if data.holdout:
        held = {video.id for video in held_out(dataset, data.holdout)}
        dataset = dataset.only([video for video in dataset.videos if video.id not in held])
        if not dataset.videos:
            raise UserError(f"config.data.holdout={data.holdout}: leaves no video to train on")
    print(f"training on {describe(dataset)}")
    return dataset


def validation_split(config):
    """The videos to evaluate, a `VisDataset`, or None where `config` names none. Says what they are.

    These are the held out training videos where `data.holdout` is set, else the split `data.val_split`.
    """
    data = config.data
    if data.holdout:
        dataset = _training_videos(data)
        dataset = dataset.only(held_out(dataset, data.holdout))
        print(f"evaluating held out ({data.holdout}) {describe(dataset)}")
        return dataset
    if data.val_annotations:
        dataset = read_vis(data.val_annotations, data.val_frames or None)
    elif data.root and data.val_split:
        dataset = read_split(_find(data, data.val_split))
    else:
        return None
    print(f"evaluating {describe(dataset)}")
    if not dataset.labelled:
        print(
            f"{dataset.annotations_path}: has no labels, so there will be a submission for its server and no "
            f"scores; for scores, evaluate a part of the training videos (data.holdout={TENTH!r})"
        )
    return dataset


def read_split(files):
    """`VisDataset` of a split that was found (`layouts.SplitFiles`); its frames must be there."""
    if files.packed:
        from masktrack_jax.data.pack.read import read_packed

        return read_packed(files)
    dataset = read_vis(files.annotations, files.annotations.parent)
    if not dataset.videos:
        raise UserError(f"{files.annotations}: names no videos; correct the annotations file")
    ends = dataset.videos[:1] + dataset.videos[-1:]
    frames = choose_frames(files, [video.file_names[0] for video in ends])
    return dataclasses.replace(dataset, frames_root=frames)


def describe(dataset):
    """A data set in one line."""
    counts = {
        "videos": len(dataset.videos),
        "frames": sum(video.length for video in dataset.videos),
        "objects": sum(map(len, dataset.objects.values())) if dataset.labelled else None,
        "categories": len(dataset.categories),
    }
    counts = ", ".join(f"{n} {name}" if n is not None else f"no {name}" for name, n in counts.items())
    return f"{dataset.annotations_path}: {counts}; frames in {dataset.frames_root}"


def held_out(dataset, holdout):
    """The videos of a training split that are kept for evaluation, in the file's order.

    holdout: "tenth", those whose folder's name has a CRC-32 that 10 divides (about a tenth, the same ones for
        everyone, whatever the order and ids of the file), or the path of a text file with the names or ids of
        videos, one a line; empty lines and those that begin with # are skipped.
    """
    if holdout == TENTH:
        found = [video for video in dataset.videos if zlib.crc32(folder_name(video).encode()) % 10 == 0]
        if not found:
            raise UserError(
                f"config.data.holdout={TENTH}: takes none of the {len(dataset.videos)} videos of "
                f"{dataset.annotations_path}; name some in a file"
            )
        return found
    wanted = _listed(pathlib.Path(holdout), dataset)
    return [video for video in dataset.videos if video.id in wanted]


def folder_name(video):
    """The folder of a video's frames as the file has it; the video's own name where they lie in none."""
    folder = str(pathlib.PurePosixPath(video.file_names[0]).parent)
    return video.name if folder == "." else folder


def _listed(path, dataset):
    """The ids of the videos that a list file names."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.data.holdout: {path} cannot be read ({error}); give {TENTH!r} or a file with the name "
            "of a video a line"
        ) from None
    ids = {str(video.id): video.id for video in dataset.videos}
    for video in dataset.videos:  # a name goes before an id that reads the same
        ids |= {video.name: video.id, folder_name(video): video.id}
    found = set()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            if line not in ids:
                raise UserError(
                    f"{path}: line {number}: {line!r} is no video of {dataset.annotations_path}; correct it"
                )
            found.add(ids[line])
    if not found:
        raise UserError(f"{path}: names no video; give one a line")
    return found


def ground_truth(dataset, category_ids):
    """The labels of `dataset`'s videos in these categories: the dict of a YouTube-VIS file.

    Everything that the evaluator may use is as in the file that `dataset` was read from.
    """
    content = read_ground_truth(dataset.annotations_path)
    if is_cocovid(content):
        content = from_cocovid(content, functools.partial(file_error, dataset.annotations_path))
    videos = {video.id for video in dataset.videos}
    return content | {
        "videos": [video for video in content["videos"] if video["id"] in videos],
        "categories": [record for record in content["categories"] if record["id"] in category_ids],
        "annotations": [
            record
            for record in content["annotations"]
            if record["video_id"] in videos and record["category_id"] in category_ids
        ],
    }


def _training_videos(data):
    """All training videos, held out or not."""
    if data.train_annotations:
        return read_vis(data.train_annotations, data.train_frames or None)
    return read_split(_find(data, "train"))


def _find(data, split):
    return find_split(find_dataset(data.root, data.name), split)
