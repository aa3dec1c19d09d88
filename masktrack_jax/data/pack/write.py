"""Pack the splits of a data set into ArrayRecord files."""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Sequence

from masktrack_jax.data.layouts import PACKED_ANNOTATIONS, PACKED_DIGESTS, find_dataset, find_split, is_part
from masktrack_jax.data.split_files import read_unpacked, summary_line
from masktrack_jax.data.vis import VisDataset
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.files import make_folder
from masktrack_jax.video.images import check_frame


def pack(
    root: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    name: str = "",
    splits: Sequence[str] = (),
    shards: int | None = None,
) -> pathlib.Path:
    """Pack the data set `name` below `root` (see `layouts.find_dataset`); returns the new folder.

    splits: names of the splits to pack; by default all that exist.
    shards: number of files per split; by default one for each GiB.

    Leaves nothing behind after a UserError or an interruption.
    """
    files = find_dataset(root, name)
    chosen = {split: find_split(files, split) for split in splits or files.splits}
    if files.packed:
        raise UserError(f"{files.folder}: is already packed")
    title = files.name or own_name(files.folder)
    output = pathlib.Path(output)
    target = output / "vis_frames" / title / "1.0.0"
    try:
        os.path.abspath(target).encode()
    except UnicodeEncodeError:
        raise UserError(f"{output}: is not UTF-8, as ArrayRecord needs; choose another --output") from None
    if target.exists():
        raise UserError(f"{target}: exists; remove it or choose another --output")
    datasets = {split: read_unpacked(one) for split, one in chosen.items()}
    for dataset in datasets.values():
        print(f"packing {summary_line(dataset)}")
    _check(datasets)
    fewest = min(sum(video.length for video in dataset.videos) for dataset in datasets.values())
    if shards is not None and not 1 <= shards <= fewest:
        raise UserError(f"--shards: is {shards}; give 1 to {fewest}, the frames of the smallest split")
    existed = output.exists()
    work = make_folder(output) / f".packing-{os.getpid()}"
    try:
        folder = _build(datasets, work, title, shards)
        for split, one in chosen.items():
            name = PACKED_ANNOTATIONS.format(split=split)
            shutil.copyfile(one.annotations, folder / name)
            with open(folder / name, "rb") as copy, open(folder / PACKED_DIGESTS, "a") as digests:
                print(hashlib.file_digest(copy, "sha256").hexdigest(), f" {name}", file=digests)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, target)
    except OSError as error:
        raise UserError(f"{output}: not packed ({error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not existed and not any(output.iterdir()):
            output.rmdir()
    return target


def own_name(folder: pathlib.Path) -> str:
    """A name for a data set that is not a published one: "street" for "videos/street/train"."""
    parts = [part for part in folder.resolve().parts if not is_part(part)]
    return re.sub(r"[^A-Za-z0-9_]", "_", parts[-1]).strip("_") or "videos"


def _check(datasets: dict[str, VisDataset]) -> None:
    """Raise a UserError unless the splits can be packed together and all frames can be read."""
    first = next(iter(datasets.values()))
    for dataset in datasets.values():
        if dataset.categories != first.categories:
            raise UserError(
                f"{dataset.annotations_path}: its categories are not those of {first.annotations_path}; pack "
                "them one by one (--splits)"
            )
    for dataset in datasets.values():
        for video in dataset.videos:
            for frame in range(video.length):
                if not dataset.has_frame(video, frame):
                    raise UserError(
                        f"{dataset.frame_path(video, frame)}: no such image; unpack the frames, or choose "
                        "other splits (--splits)"
                    )
                check_frame(dataset.frame_path(video, frame), (video.height, video.width))


def _build(
    datasets: dict[str, VisDataset], work: pathlib.Path, title: str, shards: int | None
) -> pathlib.Path:
    """Write the records below the folder `work`; returns their folder."""
    import tensorflow_datasets as tfds

    from masktrack_jax.data.pack.tfds_builder import VisConfig, VisFrames

    # Silence TFDS, which reports downloads and unregistered code; our own progress bar counts frames.
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        config = VisConfig(name=title, datasets=datasets)
        # TFRecord, the default, would need TensorFlow.
        builder = VisFrames(config=config, data_dir=work, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return pathlib.Path(builder.data_dir)
