"""Every config file is valid and has the same keys as the base config; errors name the key.

The oracle of the base is mmtracking's published recipe.
"""

import pytest

from masktrack_jax.config.base import base_config, validate
from masktrack_jax.data.options import PairOptions
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training.schedule import learning_rate, make_optimizer
from tests.helpers.configs import ROOT, load_config


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.py")))
def test_every_config_is_valid(name):
    config = load_config(name)
    assert validate(config) is config
    PairOptions.from_config(config.data)
    make_optimizer(config.optimizer, 1000, {"w": True})
    assert 0 < float(learning_rate(config.optimizer, 1000)(500)) <= config.optimizer.learning_rate

    # The same sections and keys as the base: a misspelt key would be one more.
    def keys(section, path=""):
        for key, value in section.items():
            yield from keys(value, f"{path}.{key}") if hasattr(value, "items") else [f"{path}.{key}"]

    assert set(keys(config)) == set(keys(base_config()))


def test_the_base_is_mmtrackings_recipe():
    """masktrack_rcnn_r50_fpn_12e_youtubevis2019 and its bases."""
    config = base_config()
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.00125, 0.9)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (1e-4, 35)
    assert (optimizer.warmup_steps, optimizer.warmup_factor) == (500, pytest.approx(1 / 3))
    assert [12 * at for at in optimizer.decay_at] == pytest.approx([8, 11])
    assert (config.train.batch_size, config.train.epochs) == (8, 12)
    assert (config.train.rpn.samples, config.train.rpn.positive_fraction) == (64, 0.5)
    assert (config.train.roi.samples, config.train.roi.positive_fraction) == (128, 0.25)
    assert config.model.proposals.to_dict() == {"pre_nms": 200, "post_nms": 200, "nms_iou": 0.7}
    wanted = {"score_threshold": 0.01, "nms_iou": 0.5, "max_detections": 100}
    assert config.model.detections.to_dict() == wanted


@pytest.mark.parametrize(
    "key, value",
    [
        ("model.dtype", "float16"),
        ("model.backbone.depth", 51),
        ("model.backbone.frozen_stages", 5),
        ("model.backbone.frozen_stages", -1),
        ("model.backbone.norm", "batch"),
        ("model.fpn.norm", "batch"),
        ("model.mask_head.norm", ""),
        ("model.anchors.strides", (4, 8, 16, 32)),
        ("model.neck", "pan"),
        ("model.track_head.kind", "fcs"),
        ("train.only", "track_head, box_head"),
        ("train.track.loss", "quasi-dense"),
        ("train.track.triplet.margin", -0.1),
        ("train.rpn.positive_fraction", 1.5),
        ("train.on_nan", "go"),
        ("optimizer.name", "lion"),
        ("optimizer.schedule", "linear"),
        ("data.on_error", "go"),
        ("data.flip", 1.5),
        ("data.buckets", ((384, 600),)),
        ("train.track.softmax.over", "all"),
        ("train.track.contrastive.margin", -1.0),
        ("train.only", "track_head,"),
        ("train.only", "tracker"),
        ("model.anchors.sizes", ()),
        ("model.track_head.features", 0),
        ("inference.association.score_weight", -1.0),
        ("train.track.roi.positive_fraction", 0.001),
        ("data.train_annotations", ""),
        ("data.val_split", "val"),
        ("train.batch_size", 0),
        ("train.accumulate", 0),
        ("train.log_every", 0),
        ("train.evaluate_every", -1),
        ("inference.frames_per_call", 0),
        ("inference.order_when_cut", "area"),
        ("inference.association.similarity", "euclid"),
        ("inference.association.assignment", "auction"),
        ("inference.association.memory", "first"),
        ("inference.association.bank_compare", "median"),
        ("inference.association.bank_size", 0),
        ("inference.association.average_rate", 0.0),
        ("inference.association.average_rate", 1.1),
        ("inference.association.frames_retained", -1),
        ("inference.association.iou_frames", -1),
        ("inference.association.high_score", 1.5),
        ("inference.association.new_score", -0.1),
        ("inference.association.duplicate_iou", 2.0),
        ("inference.tracks.label", "first"),
        ("inference.tracks.score", "median"),
        ("inference.tracks.fill_gaps", -1),
    ],
)
def test_errors_name_the_key(tiny_config, key, value):
    tiny_config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        validate(tiny_config)
    assert str(error.value).startswith(f"config.{key}: ") and "\n" not in str(error.value)


def test_a_network_without_a_neck_has_one_stride(tiny_config):
    tiny_config.model.neck = "none"
    with pytest.raises(UserError, match=r"config\.model\.anchors\.strides: is .*; give 1, "):
        validate(tiny_config)
    tiny_config.model.anchors.strides = (32,)
    assert validate(tiny_config) is tiny_config


def test_a_run_needs_a_length(tiny_config):
    tiny_config.train.update({"steps": 0, "epochs": 0.0})
    with pytest.raises(UserError, match=r"config\.train\.epochs"):
        validate(tiny_config)


@pytest.mark.parametrize(
    "key, words",
    [
        ("optimizer.decay_factor", "config.optimizer.decay_factor: there is no such key"),
        (
            "train.track.contrastive.references",
            "config.train.track.contrastive.references: there is no such key",
        ),
        ("train.bach_size", "did you mean train.batch_size?"),
    ],
)
def test_a_key_of_a_file_that_nothing_reads_is_refused(key, words):
    config = load_config("tiny")
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    section[name] = 0.5
    with pytest.raises(UserError) as caught:
        validate(config)
    assert words in str(caught.value)
