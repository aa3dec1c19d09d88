"""A split is segmented with the real network, scored and written."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from masktrack_jax.data.vis import read_vis
from masktrack_jax.inference.split import common_categories, evaluate_split
from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN, build_model
from masktrack_jax.runtime.errors import UserError


def test_a_split_is_segmented_scored_and_written(
    tmp_path: Path, tiny_config: ConfigDict, tiny_data: Path, tiny_model: tuple[MaskTrackRCNN, dict[str, Any]]
) -> None:
    dataset = read_vis(tiny_data)
    categories = dataset.labels
    model = build_model(tiny_config, len(categories))
    variables = model.init_variables(jax.random.key(0))
    tiny_config.data.val_annotations = str(tiny_data)
    metrics = evaluate_split(tiny_config, dataset, categories, variables, tmp_path / "metrics.json")
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["AP"] == metrics["AP"] and set(written["per_category"]) == {n for _, n in categories}
    results = json.loads((tmp_path / "results.json").read_text())
    assert {track["video_id"] for track in results} <= {video.id for video in dataset.videos}


def test_other_categories_are_named(tiny_data: Path) -> None:
    with pytest.raises(
        UserError, match=r"none of its 6 categories \(circle, .*, …\) is among the network's 1"
    ):
        common_categories([(1, "zebra")], read_vis(tiny_data))
