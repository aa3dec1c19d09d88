"""Options of generated data sets; importing them does not load OpenCV."""

from dataclasses import dataclass
from functools import partial
from operator import ge

from masktrack_jax.runtime.options import Check, at_least, between, check_options, option, positive, require

SHORT = 8  # frames of a video in which no object has time to leave and return
PREFIX = "generator option "  # of error messages
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
known_shapes = Check(
    lambda names: 0 < len(names) == len(set(names) & set(SHAPES)),
    f"use different ones of {', '.join(SHAPES)}",
)


@dataclass(frozen=True)
class GeneratorOptions:
    """Options of a generated data set. Video i depends only on i, `seed` and the options after `seed`."""

    videos: int = option(comment="number of videos", check=between(1, 10**6))
    seed: int = option(0, "seed of all random numbers", at_least(0))
    height: int = option(96, "height of the frames in pixels", between(32, 8192))
    width: int = option(160, "width of the frames in pixels", between(32, 8192))
    frames: int = option(20, "frames of each video", between(1, 10**5))
    min_objects: int = option(2, "fewest objects of a video", at_least(1))
    max_objects: int = option(4, "most objects of a video", between(1, 250))  # their map is uint8
    min_diameter: float = option(0.18, "smallest diameter of an object, in heights of the frame", positive)
    max_diameter: float = option(0.45, "largest diameter, in heights of the frame", between(0, 0.9))
    categories: tuple[str, ...] = option(SHAPES, "shapes of the objects", known_shapes)
    same_category: float = option(0.8, "probability that two or more objects share a category", between(0, 1))
    # Videos of fewer than `SHORT` frames use neither. An object that enters late does not leave.
    leave: float = option(0.25, "probability that an object leaves the frame and returns", between(0, 1))
    enter: float = option(0.0, "probability that an object enters the frame late", between(0, 1))
    speed: float = option(1.0, "factor of the speed", Check(lambda x: 0 < x <= 20, "must be in (0, 20]"))
    pillars: int = option(0, "walls in the foreground, 0.6 to 1.1 × max_diameter wide", between(0, 8))
    min_visible: float = option(
        0.05,
        "smallest visible part of a labelled object",
        Check(lambda x: 0 <= x < 1, "must be in [0, 1)"),
    )
    jpeg_quality: int = option(92, "JPEG quality of the frames", between(1, 100))

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        check_options(self, self, PREFIX)
        for key in ("objects", "diameter"):
            most = getattr(self, f"max_{key}")
            order = Check(partial(ge, most), f"must be max_{key}={most} or less")
            require(getattr(self, f"min_{key}"), order, f"{PREFIX}min_{key}")


# Data sets in which identities are hard to keep: many objects of one category that cross each other, are
# hidden for long, leave and return. The first is small enough to train on a laptop, the second needs a GPU.
_CROWDED = {
    "categories": ("circle", "square", "triangle", "star"),
    "same_category": 1.0,
    "leave": 0.5,
    "enter": 0.3,
    "pillars": 1,
}
PRESETS = {
    "hard": _CROWDED | {"frames": 40, "min_objects": 5, "max_objects": 8, "min_diameter": 0.28, "speed": 1.5},
    "hard-large": _CROWDED
    | {"height": 360, "width": 640, "frames": 60, "min_objects": 6, "max_objects": 12, "speed": 1.5},
}
