"""Starting from the weights of another run: they are loaded, keep their initial values, or are refused."""

import jax
import numpy as np
import pytest

from masktrack_jax.models.masktrack_rcnn import build_model
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.training import start
from tests.helpers.interop import quick_initialisation
from tests.helpers.training import same


def test_starting_from_a_checkpoint(finished, config, capsys, monkeypatch):
    """Everything is loaded; another backbone is refused."""
    quick_initialisation(monkeypatch)
    folder, state, categories = finished
    config.train.init_from = str(folder)
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    params = start.start_variables(config, fresh, categories)["params"]
    assert same(params, state.params) and not same(params, fresh["params"])
    assert capsys.readouterr().out == f"{folder}: loaded\n"
    config.model.fpn.channels = 24
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    with pytest.raises(UserError, match="another architecture"):
        start.start_variables(config, fresh, categories)


def test_starting_from_a_checkpoint_of_another_form(finished, config, capsys, monkeypatch):
    """Settings that shapes do not show are printed; strides in other layers are refused."""
    quick_initialisation(monkeypatch)
    folder, _, categories = finished
    config.train.init_from = str(folder)
    config.model.track_head.relu_last = False
    fresh = build_model(config, len(categories)).init_variables(jax.random.key(9))
    start.start_variables(config, fresh, categories)
    assert (
        "was trained with config.model.track_head.relu_last=True; training continues with False"
        in capsys.readouterr().out
    )
    config.model.backbone.stride_in_1x1 = True
    with pytest.raises(UserError, match=r"set config\.model\.backbone\.stride_in_1x1=False"):
        start.start_variables(config, fresh, categories)


def test_starting_from_a_checkpoint_of_other_categories(finished, config, capsys, monkeypatch):
    """Rows of classes are taken by name; those of a new class stay."""
    quick_initialisation(monkeypatch)
    folder, state, categories = finished
    config.train.init_from = str(folder)
    config.model.track_head.features = 24
    others = [(50, "new"), *reversed(categories)]
    fresh = build_model(config, len(others)).init_variables(jax.random.key(9))["params"]
    params = start.start_variables(config, {"params": fresh}, others)["params"]
    old = jax.device_get(state.params)
    for name in ("backbone", "fpn", "rpn_head"):
        assert same(params[name], old[name])
    assert same(params["track_head"], fresh["track_head"])  # of another size
    for module, leaf in (("logits", "kernel"), ("logits", "bias"), ("deltas", "kernel"), ("deltas", "bias")):
        got, was, new = (tree["box_head"][module][leaf] for tree in (params, old, fresh))
        if module == "logits":
            wanted = [new[..., :1], was[..., -2::-1], was[..., -1:]]  # the background stays the last
        else:
            by_class = was.reshape(*was.shape[:-1], len(categories), 4)
            wanted = [new[..., :4], by_class[..., ::-1, :].reshape(was.shape)]
        np.testing.assert_array_equal(got, np.concatenate(wanted, axis=-1))
    for name in ("logits_kernel", "logits_bias"):
        got, was, new = (tree["mask_head"][name] for tree in (params, old, fresh))
        np.testing.assert_array_equal(got, np.concatenate([new[..., :1], was[..., ::-1]], axis=-1))
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "params/track_head/fc1/kernel" in line
    assert line.endswith("; new categories: new (1 of 7)\n")
