"""The defaults of association and tracks against the paper and mmtracking 0.14; errors for wrong types."""

import pytest

from masktrack_jax.config.base import base_config
from masktrack_jax.config.inference import validate_inference
from masktrack_jax.runtime.errors import UserError


def test_association_and_tracks_are_the_papers_by_default():
    """Equation 4 with the published weights, and what mmtracking 0.14 does beside it."""
    inference = base_config().inference
    published = {
        "similarity": "softmax",
        "assignment": "greedy",
        "memory": "last",
        "new_threshold": 0.0,
        "score_weight": 1.0,
        "iou_weight": 2.0,
        "label_weight": 10.0,
        "frames_retained": 20,
        "use_embedding": True,
        "update_label": True,
        "same_label": False,
        "iou_frames": 0,
        "high_score": 0.0,
        "new_score": 0.0,
        "duplicate_iou": 1.0,
    }
    assert published.items() <= inference.association.to_dict().items()
    assert inference.tracks.to_dict() == {"label": "majority", "score": "mean", "fill_gaps": 0}


def test_an_error_tells_the_value_and_the_choices():
    inference = base_config().inference
    inference.association.memory = "all"
    with pytest.raises(UserError) as error:
        validate_inference(inference)
    key = "config.inference.association.memory"
    assert str(error.value) == f"{key}: is 'all'; use one of 'last', 'average', 'bank'"
