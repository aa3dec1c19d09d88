"""The options of the association."""

from dataclasses import dataclass

from masktrack_jax.runtime.options import Check, at_least, between, one_of, option, positive


@dataclass(frozen=True)
class AssociationOptions:
    """The rules, the weights of the cues and the length of the memory; the defaults are the published ones.

    docs/tracking.md describes each option. `similarity`, `assignment` and `memory` are names in SIMILARITIES,
    ASSIGNMENTS and MEMORIES.
    """

    similarity: str = option("softmax", "similarity of embeddings, see docs/tracking.md")
    assignment: str = option("greedy", "assignment of detections to objects, see docs/tracking.md")
    memory: str = option("last", "memory of an object's embeddings, see docs/tracking.md")
    new_threshold: float = option(0.0, "similarity above which a detection is a known object, not a new one")
    use_embedding: bool = option(True, "False: similarity none, to measure the value of the track head")
    score_weight: float = option(1.0, "α of equation 4; 0 leaves this cue out", at_least(0))
    iou_weight: float = option(2.0, "β of equation 4; 0 leaves this cue out", at_least(0))
    label_weight: float = option(10.0, "γ of equation 4; 0 leaves this cue out", at_least(0))
    same_label: bool = option(False, "match an object only with detections of its own label")
    iou_frames: int = option(0, "frames unseen until the IoU cue has decayed to 0; 0: no decay", at_least(0))
    average_rate: float = option(
        0.8,
        "weight of the newest embedding (memory average)",
        Check(lambda x: 0 < x <= 1, "must be in (0, 1]"),
    )
    bank_size: int = option(10, "embeddings of an object (memory bank)", positive)
    bank_compare: str = option(
        "mean", "mean or max of the similarities to them (memory bank)", one_of("mean", "max")
    )
    frames_retained: int = option(20, "frames unseen until an object is forgotten; 0: never", at_least(0))
    update_label: bool = option(True, "label of an object: its latest detection's; False: its first one's")
    keep_displaced: bool = option(False, "greedy: a detection displaced by a better one keeps the id too")
    second_choice: bool = option(True, "hungarian, in_turn: a detection may get another object than its best")
    high_score: float = option(0.0, "lower scores are matched second and start no object", between(0, 1))
    new_score: float = option(0.0, "lower scores start no object", between(0, 1))
    duplicate_iou: float = option(
        1.0, "boxes of higher IoU with a detection of an object start no object", between(0, 1)
    )


DEFAULT = AssociationOptions()
