"""Quick initialisation and one-line errors for the tests of masktrack_jax/interop."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from masktrack_jax.models.masktrack_rcnn import MaskTrackRCNN
from masktrack_jax.runtime.errors import UserError

INITIAL = 0.25


def quick_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill networks with `INITIAL` instead of initialising them, which takes seconds to compile."""
    shapes_of = MaskTrackRCNN.init_variables

    def fill(model: MaskTrackRCNN, key: jax.Array) -> dict[str, Any]:
        shapes = jax.eval_shape(partial(shapes_of, model), key)
        return jax.tree.map(lambda x: np.full(x.shape, INITIAL, x.dtype), shapes)

    monkeypatch.setattr(MaskTrackRCNN, "init_variables", fill)


def one_line(error: pytest.ExceptionInfo[UserError], *words: object) -> str:
    """Return the message of a `UserError`: one line of moderate length with these words."""
    text = str(error.value)
    assert "\n" not in text and len(text) < 400, text
    for word in words:
        assert str(word) in text, text
    return text
