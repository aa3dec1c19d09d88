"""Read a split from the annotations and frames that `layouts` found."""

import dataclasses

from masktrack_jax.data.layouts import SplitFiles, choose_frames
from masktrack_jax.data.vis import VisDataset, read_vis
from masktrack_jax.runtime import copies
from masktrack_jax.runtime.errors import UserError, printable


def read_unpacked(files: SplitFiles) -> VisDataset:
    """Read a split that is not packed; its frames must exist. Raises UserError."""
    dataset = read_vis(files.annotations, files.annotations.parent)
    if not dataset.videos:
        raise UserError(f"{files.annotations}: names no videos; correct the annotations file")
    ends = dataset.videos[:1] + dataset.videos[-1:]
    frames = choose_frames(files, [video.file_names[0] for video in ends])
    return dataclasses.replace(dataset, frames_root=frames)


def summary_line(dataset: VisDataset) -> str:
    """Describe a data set in one line: its file, counts and folder of frames."""
    counts = {
        "videos": len(dataset.videos),
        "frames": sum(video.length for video in dataset.videos),
        "objects": sum(map(len, dataset.objects.values())) if dataset.labelled else None,
        "categories": len(dataset.categories),
    }
    text = ", ".join(f"{n} {name}" if n is not None else f"no {name}" for name, n in counts.items())
    here = (
        "" if dataset.packed else copies.summary(dataset.frames_root, sum(v.length for v in dataset.videos))
    )
    return printable(f"{dataset.annotations_path}: {text}; frames in {dataset.frames_root}{here}")
