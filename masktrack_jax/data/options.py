"""How training pairs are drawn and shaped."""

import dataclasses

from masktrack_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """How pairs are drawn and shaped; the `data` section of a configuration."""

    scales: tuple[tuple[int, int], ...]  # (long edge, short edge) in pixels; one is drawn for each pair
    buckets: tuple[tuple[int, int], ...]  # padded (height, width), multiples of 32
    max_objects: int  # G: rows of an image; the largest are kept
    pixel_boxes: bool = False  # scale and clip boxes by their first and last pixel, as the authors
    float_resize: bool = False  # resize as float32, as mmtracking trains
    flip: float = 0.5  # probability of a left-right flip
    max_gap: int = 100  # frames between key and reference at most; 0: any other frame
    jitter: float = 0.0  # largest change of brightness, contrast and each channel, as a part; keep it mild
    both_ways: bool = False  # each frame of a pair is key and reference in turn
    cache_mb: int = 0  # decoded frames kept in memory by each process, MiB

    def __post_init__(self):
        for name in ("scales", "buckets"):
            try:
                value = tuple((int(a), int(b)) for a, b in getattr(self, name))
            except (TypeError, ValueError):
                raise UserError(
                    f"data.{name}: {getattr(self, name)!r} is not a list of two integers each"
                ) from None
            object.__setattr__(self, name, value)
        checks = {
            "scales": self.scales and all(long >= short >= 1 for long, short in self.scales),
            "buckets": self.buckets and all(side > 0 and side % 32 == 0 for b in self.buckets for side in b),
            "max_objects": self.max_objects >= 1,
            "flip": 0 <= self.flip <= 1,
            "max_gap": self.max_gap >= 0,
            "jitter": 0 <= self.jitter <= (0 if self.float_resize else 1),
            "cache_mb": self.cache_mb >= 0,
        }
        hints = {"scales": " (long edge first)", "buckets": " (multiples of 32)"}
        if self.float_resize:
            hints["jitter"] = " (0 with data.float_resize)"
        for name, good in checks.items():
            if not good:
                raise UserError(f"data.{name}: {getattr(self, name)!r} is out of range{hints.get(name, '')}")

    @classmethod
    def from_config(cls, section):
        """PairOptions of the entries of a configuration section (a mapping) that are named as fields."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: section[key] for key in section if key in known}
        missing = {"scales", "buckets", "max_objects"} - values.keys()
        if missing:
            raise UserError(f"data.{min(missing)}: is missing from the configuration; set it")
        return cls(**values)
