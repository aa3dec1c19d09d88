"""Options of the data pipeline; importing them does not load OpenCV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import Check, at_least, between, check_options, option, require

long_edge_first = Check(
    lambda scales: len(scales) > 0 and all(long >= short >= 1 for long, short in scales),
    "give (long edge, short edge) of each scale, the long edge first",
)
multiples_of_32 = Check(
    lambda buckets: len(buckets) > 0 and all(s > 0 and s % 32 == 0 for bucket in buckets for s in bucket),
    "give (height, width) of each bucket, multiples of 32",
)


@dataclass(frozen=True)
class PairOptions:
    """How pairs are sampled and transformed: the keys of the `data` section that change a sample."""

    scales: tuple[tuple[int, int], ...] = option(
        ((640, 360),), "(long edge, short edge) in pixels; one is drawn for each pair", long_edge_first
    )
    # In a larger bucket than necessary, a frame's padding differs from the published code. So the common
    # shapes have buckets of their own.
    buckets: tuple[tuple[int, int], ...] = option(
        ((384, 640), (384, 480), (384, 384), (480, 384), (640, 384)),
        "padded (height, width), multiples of 32",
        multiples_of_32,
    )
    max_objects: int = option(20, "most objects of a frame; the largest boxes are kept", at_least(1))
    pixel_boxes: bool = option(False, "scale and clip boxes by their first and last pixel, as the authors do")
    float_resize: bool = option(False, "resize in float32, as mmtracking does; moves four times the data")
    flip: float = option(0.5, "probability of a left-right flip", between(0, 1))
    max_gap: int = option(100, "most frames between key and reference; 0: any number", at_least(0))
    jitter: float = option(0.0, "largest relative change of brightness, contrast and channels", between(0, 1))
    both_ways: bool = option(False, "use each frame of a pair both as key and as reference")
    cache_mb: int = option(0, "MiB of decoded frames that each process keeps", at_least(0))

    def __post_init__(self) -> None:
        for name in ("scales", "buckets"):
            object.__setattr__(self, name, _pairs_of_integers(name, getattr(self, name)))
        check_options(self, self, "config.data.")
        if self.float_resize:
            require(self.jitter, Check(lambda x: x == 0, "must be 0 with float_resize"), "config.data.jitter")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """The options in a config section; other keys of the section are ignored."""
        values = {item.name: section[item.name] for item in fields(cls) if item.name in section}
        for name in ("scales", "buckets", "max_objects"):  # depend on the data: no default fits them all
            if name not in values:
                raise UserError(f"config.data.{name}: is missing from the configuration; set it")
        return cls(**values)


def _pairs_of_integers(name: str, value: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    try:
        pairs = tuple((int(a), int(b)) for a, b in value)
        if all((a, b) == tuple(pair) for (a, b), pair in zip(pairs, value)):  # int() cuts 64.5 and reads "64"
            return pairs
        raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"config.data.{name}: {value!r} is not a list of pairs of integers") from None
