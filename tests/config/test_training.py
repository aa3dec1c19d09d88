"""Keys of `train` and `optimizer` on the command line are obeyed, or refused where nothing reads them."""

import pytest

from masktrack_jax.config.base import base_config
from masktrack_jax.config.training import check_effects, replace_length
from masktrack_jax.runtime.errors import UserError


def test_epochs_go_before_the_steps_of_the_config_file():
    train = base_config().train
    train.steps = 40
    assert not list(replace_length(train, ["seed"])) and train.steps == 40
    assert list(replace_length(train, ["train.epochs"])) == [
        "config.train.steps=40 gives way to config.train.epochs"
    ]
    assert train.steps == 0
    train.steps = 40
    with pytest.raises(UserError, match=r"config\.train\.epochs: has no effect beside config\.train\.steps"):
        list(replace_length(train, ["train.epochs", "train.steps"]))


@pytest.mark.parametrize(
    "key, value, other, makes_it_count",
    [
        ("train.track.triplet.margin", 0.5, "train.track.loss", "triplet"),
        ("train.loss_weights.match_cosine", 0.5, "train.track.loss", "quasi_dense"),
        ("train.keep_best", True, "train.evaluate_every", 5),
        ("optimizer.momentum", 0.5, "optimizer.name", "sgd"),
        ("optimizer.decay_at", (0.5,), "optimizer.schedule", "steps"),
        ("optimizer.warmup_factor", 0.5, "optimizer.warmup_steps", 5),
    ],
)
def test_a_key_that_nothing_reads_is_refused(key, value, other, makes_it_count):
    config = base_config()
    config.optimizer.update(name="adamw", schedule="cosine", warmup_steps=0)
    with pytest.raises(UserError, match=rf"config\.{key}: has no effect without config\.{other}"):
        check_effects(config, {key: value})
    config.update_from_flattened_dict({other: makes_it_count})
    check_effects(config, {key: value})
    check_effects(base_config(), {"train.keep_best": False})
