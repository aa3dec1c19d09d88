"""Frame pairs as arrays, passed from the data pipeline to the training step.

The arrays are NumPy's on the host and JAX's on a device. `*batch` is empty for a single pair. Frames with
fewer objects than `objects` are padded; see `Frames.valid`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int, UInt8


class FrameTargets(NamedTuple):
    """The training targets of the objects of a frame."""

    labels: Int[Any, "*batch objects"]
    masks: UInt8[Any, "*batch objects height packed_width"]  # bits packed along the width by `np.packbits`
    matches: Int[Any, "*batch objects"]  # 1 + the object's row in the other frame; 0 if it is absent there


class Frames(NamedTuple):
    """One frame of each pair, with its objects."""

    image: UInt8[Any, "*batch height width 3"] | Float[Any, "*batch height width 3"]  # 0 to 255, padded
    image_size: Int[Any, "*batch 2"]  # height and width before padding
    boxes: Float[Any, "*batch objects 4"]  # x1, y1, x2, y2 in pixels of the resized image
    valid: Bool[Any, "*batch objects"]
    targets: FrameTargets | None = None  # None for reference frames without `data.both_ways`

    @property
    def labelled(self) -> FrameTargets:
        """The targets; raises a ValueError if the frames have none."""
        if self.targets is None:
            raise ValueError("these frames have no targets")
        return self.targets


class FramePairs(NamedTuple):
    """The input of a training step: key frames, and for each a reference frame of the same video."""

    key: Frames
    reference: Frames


class Provenance(NamedTuple):
    """The origin of pairs, for messages and counts."""

    video_index: Int[Any, "*batch"]
    key_frame: Int[Any, "*batch"]
    reference_frame: Int[Any, "*batch"]
    skipped: Int[Any, "*batch"]  # unreadable pairs that were drawn before this one


class PairBatch(NamedTuple):
    """A batch as the pipeline yields it, or a single pair."""

    key: Frames
    reference: Frames
    provenance: Provenance

    @property
    def pairs(self) -> FramePairs:
        """The batch without its provenance."""
        return FramePairs(self.key, self.reference)


def map_arrays(function: Callable, part: Any) -> Any:
    """Apply `function` to each array of `part`, a NamedTuple or an array of a batch (without JAX)."""
    if part is None:
        return None
    if isinstance(part, tuple):
        return type(part)(*(map_arrays(function, field) for field in part))
    return function(part)
