"""The options of the association: which rules, how much each cue weighs, how long an object is remembered.

The defaults are the paper's multi-cue greedy rule (Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019,
section 4.3) with the memory of mmtracking 0.14: an object's latest box, label and embedding, forgotten after
20 frames unseen. The authors' own form differs in a few values. `tracker.Tracker` applies the rules.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AssociationOptions:
    """The rules, the weights of the cues and the length of the memory; defaults are the published ones.

    similarity, assignment, memory: names in `SIMILARITIES`, `ASSIGNMENTS` and `MEMORIES`.
    new_threshold: what "new" has where an object has its product, cosine or bi-softmax.
    use_embedding: False takes the similarity "none", to measure what the track head is worth.
    score_weight, iou_weight, label_weight: α, β, γ of the paper's equation 4; 0 leaves a cue out.
    same_label: an object goes to detections of its own label only.
    iou_frames: the IoU cue fades to nothing in that many frames unseen; 0 never fades.
    average_rate: the newest embedding's part in the memory "average".
    bank_size, bank_compare: embeddings of the memory "bank"; "mean" or "max" of the similarities to them.
    frames_retained: an object unseen in this many frames in a row is forgotten; 0 never forgets.
    update_label: an object's label is its latest detection's (mmtracking), not its first one's (the authors).
    keep_displaced: "greedy": a detection that claimed an object before a better one of the same frame came up
        keeps its id too, so that a track may have two detections in a frame (mmtracking); else it is dropped.
    second_choice: "hungarian", "in_turn": a detection may get another object than its best, or start one,
        where its best goes to another detection. False: it is dropped, as it is under "greedy".
    high_score: detections of a lower score come second: they get objects that the others left over, and start
        none (Zhang et al., "ByteTrack", ECCV 2022).
    new_score: detections of a lower score start no object.
    duplicate_iou: nor do those whose box has a higher IoU than this, in any class, with one that got an
        object or that scores more and starts one; 1 lets them.
    """

    similarity: str = "softmax"
    assignment: str = "greedy"
    memory: str = "last"
    new_threshold: float = 0.0
    use_embedding: bool = True
    score_weight: float = 1.0
    iou_weight: float = 2.0
    label_weight: float = 10.0
    same_label: bool = False
    iou_frames: int = 0
    average_rate: float = 0.8
    bank_size: int = 10
    bank_compare: str = "mean"
    frames_retained: int = 20
    update_label: bool = True
    keep_displaced: bool = False
    second_choice: bool = True
    high_score: float = 0.0
    new_score: float = 0.0
    duplicate_iou: float = 1.0


DEFAULT = AssociationOptions()
