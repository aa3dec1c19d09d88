"""A TFDS builder of the frames of a video instance segmentation data set, one record a frame.

What it has built is read by `tfds.data_source("vis_frames/NAME", data_dir=…)`, without TensorFlow;
`data.pack` is its command. The images are the bytes of the files, not encoded anew.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from masktrack_jax.masks.segmentations import to_rle


@dataclasses.dataclass(eq=False, kw_only=True)
class VisConfig(tfds.core.BuilderConfig):
    """`datasets`: the `VisDataset` of each split, all of the same categories."""

    datasets: dict = dataclasses.field(default_factory=dict, repr=False)


class VisFrames(tfds.core.GeneratorBasedBuilder):
    """Frames in the order of the annotations file: video by video, each from its first frame on."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first form."}  # noqa: RUF012 – as TFDS has it

    def _info(self):
        """What a record holds. Boxes are x1, y1, x2, y2 in pixels; `rle` is COCO's compressed RLE counts.

        Objects without a box that is to be trained on (`vis.VisObject`) are left out.
        """
        datasets = self.builder_config.datasets.values()
        names = [category.name for dataset in datasets for category in dataset.categories]
        objects = {
            "annotation_id": np.int64,
            "label": tfds.features.ClassLabel(names=list(dict.fromkeys(names))),
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

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {
            split: self._generate_examples(split, dataset)
            for split, dataset in self.builder_config.datasets.items()
        }

    def _generate_examples(self, split, dataset):
        """Yield (place, record) of every frame."""
        place = 0
        total = sum(video.length for video in dataset.videos)
        with tqdm(total=total, desc=f"pack {split}", unit="frame", disable=None) as progress:
            for video in dataset.videos:
                for frame in range(video.length):
                    yield place, _record(dataset, video, frame)
                    place += 1
                    progress.update()


def _record(dataset, video, frame):
    """A frame as `VisFrames` stores it."""
    seen = [found for found in dataset.objects_of(video) if found.boxes[frame] is not None]
    return {
        "image": dataset.frame_path(video, frame).read_bytes(),
        "file_name": video.file_names[frame],
        "video_id": video.id,
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
                "rle": to_rle(found.segmentations[frame], video.height, video.width)["counts"],
            }
            for found in seen
        ],
    }
