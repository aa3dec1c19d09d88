"""A TFDS builder of the frames of a video instance segmentation data set, one record per frame.

The command `data.pack` runs it. `tfds.data_source("vis_frames/NAME", data_dir=…)` reads the result without
TensorFlow. The images are the bytes of the original files, not encoded again.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from masktrack_jax.data.vis import Category, Video, VisDataset
from masktrack_jax.runtime.errors import printable


@dataclasses.dataclass(eq=False, kw_only=True)
class VisConfig(tfds.core.BuilderConfig):
    """`datasets`: the `VisDataset` of each split, all of the same categories."""

    datasets: dict[str, VisDataset] = dataclasses.field(default_factory=dict, repr=False)


class VisFrames(tfds.core.GeneratorBasedBuilder):
    """Frames in the order of the annotations file, video by video."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first form."}  # noqa: RUF012 – as TFDS documents it

    def _info(self) -> tfds.core.DatasetInfo:
        """The features of a record. Boxes are x1, y1, x2, y2 in pixels.

        `rle` holds the counts of a compressed RLE. Objects without a box (`vis.VisObject`) are left out.
        """
        datasets = self.builder_config.datasets.values()
        categories = next(iter(datasets)).categories  # those of all splits
        objects = {
            "annotation_id": np.int64,
            "label": tfds.features.ClassLabel(names=_class_names(categories)),
            "iscrowd": np.bool_,
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "rle": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frames of a video instance segmentation data set with their objects.",
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "file_name": tfds.features.Text(),
                    "video_id": np.int64,
                    "frame": np.int64,  # from 0
                    "length": np.int64,  # frames of the video
                    "height": np.int64,
                    "width": np.int64,
                    "objects": tfds.features.Sequence(objects),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {
            split: self._generate_examples(split, dataset)
            for split, dataset in self.builder_config.datasets.items()
        }

    def _generate_examples(self, split: str, dataset: VisDataset) -> Iterator[tuple[int, dict]]:
        """Yield (index, record) of every frame."""
        place = 0
        total = sum(video.length for video in dataset.videos)
        with tqdm(total=total, desc=f"pack {split}", unit="frame", disable=None) as progress:
            for video in dataset.videos:
                for frame in range(video.length):
                    yield place, _record(dataset, video, frame)
                    place += 1
                    progress.update()


def _class_names(categories: Sequence[Category]) -> list[str]:
    """Names that TFDS can store: all different, each one line."""
    names = [printable(category.name) for category in categories]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({category.id})" for name, category in zip(names, categories)]


def _record(dataset: VisDataset, video: Video, frame: int) -> dict[str, Any]:
    """A frame as `VisFrames` stores it."""
    return {
        "image": dataset.frame_path(video, frame).read_bytes(),
        "file_name": video.file_names[frame].encode(errors="surrogateescape"),
        # A record has no place for an id of text; the annotations file has it.
        "video_id": video.id if isinstance(video.id, int) else dataset.videos.index(video) + 1,
        "frame": frame,
        "length": video.length,
        "height": video.height,
        "width": video.width,
        "objects": [
            {
                "annotation_id": found.annotation_id,
                "label": found.label,
                "iscrowd": found.iscrowd,
                "box": np.array(found.boxes[frame], np.float32),
                "rle": rle["counts"],
            }
            for found in dataset.objects_of(video)
            if (rle := found.segmentations[frame]) is not None
        ],
    }
