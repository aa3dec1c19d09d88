"""Wrong values of every config key, and wrong config files: one line that names the key or the place."""

import sys

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_flags

from masktrack_jax.config.base import base_config, validate
from masktrack_jax.config.listing import config_keys
from masktrack_jax.runtime import cli
from masktrack_jax.runtime.errors import UserError
from masktrack_jax.runtime.options import value_at

KEYS = config_keys()
DEFAULTS = base_config()
TEXTS = [key for key in KEYS if isinstance(value_at(DEFAULTS, key), str)]
TUPLES = [key for key in KEYS if isinstance(value_at(DEFAULTS, key), tuple)]
NUMBERS = ["0", "-1", "1.5", "1e400", "nan", "inf", "None", "True", "'a'", "10**9", "640", "360", "2**70"]
WORDS = st.sampled_from([*NUMBERS, "", "text", "é", "{}", "()", "(", "[", "b'a'", "__import__('os')", "\0"])
ROWS = st.lists(st.sampled_from(NUMBERS), max_size=4).map(lambda row: f"({','.join(row)}{',' * bool(row)})")
VALUES = (
    WORDS | ROWS | st.lists(ROWS, max_size=3).map(lambda rows: f"[{','.join(rows)}]") | st.text(max_size=5)
)


def parsed(*words):
    """The config of a command line, checked as train.py does."""
    values, argv = flags.FlagValues(), ["train.py", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)  # ml_collections reads it
        patch.setattr(ConfigDict, "__str__", lambda config: "")  # the flag's default as YAML: slow
        with cli._flag_errors(argv, config_keys, cli.ALL_KEYS):
            if any(word.startswith("--config=") for word in words):
                config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
            else:
                config_flags.DEFINE_config_dict("config", base_config(), flag_values=values)
            values(argv)
    return validate(values["config"].value)


@pytest.mark.parametrize("value", ["text", "((640,),)", "nan"])
def test_a_wrong_value_names_its_key(value):
    for key in KEYS:
        if key not in TEXTS:
            with pytest.raises(UserError) as error:
                parsed("--config.data.root=x", f"--config.{key}={value}")
            text = str(error.value)
            assert text.startswith(f"config.{key}: is ") and "\n" not in text
            assert any(word in text for word in ("must be ", "; give ", "; use ")), text


@pytest.mark.parametrize(
    "value",
    ["text", "1", "(640,)", "(640,360,1)", "(360,640)", "(640,-1)", "(640.5,360)", "((640,360),)", ""],
)
def test_a_scale_of_another_shape(value):
    wanted = r"^config\.inference\.scale: is \(.*\); give (\(long edge, short edge\)|values such as)"
    with pytest.raises(UserError, match=wanted):
        parsed("--config.data.root=x", f"--config.inference.scale={value}")


@given(key=st.sampled_from(TUPLES) | st.sampled_from(KEYS), value=VALUES)
def test_overrides(key, value):
    """Any key with any text: a config with values of the right types, or one line that names the key."""
    try:
        config = parsed("--config.data.root=x", f"--config.{key}={value}")
    except UserError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 500, text
        assert text.startswith(("config.", "flag --config.")) and key.split(".")[-1] in text, text
    else:
        found, default = value_at(config, key), value_at(DEFAULTS, key)
        assert isinstance(found, (int, float) if isinstance(default, float) else type(default))


@pytest.mark.parametrize(
    "lines, words",
    [
        ("config.train.steps = 'x'", "line 4: TypeError: Could not override field 'steps'"),
        ("1 / 0", "line 4: division by zero; correct the config file"),
        ("config.model.anchors = {'scale': 4.0}", "config.model.anchors.centre: is missing; change the"),
        ("del config.data", "config.data.both_ways: is missing"),
        ("config.inference.scale = None", "config.inference.scale: is None; give (long edge, short edge)"),
        ("config.train.keep_last = None", "config.train.keep_last: is None; must be positive"),
        ("config = None", "--config: the file gives no config (AttributeError: 'NoneType' object"),
    ],
)
def test_wrong_config_files(tmp_path, lines, words):
    path = tmp_path / "a.py"
    path.write_text(
        f"from masktrack_jax.config.base import base_config\ndef get_config():\n    config = base_config()\n"
        f"    {lines}\n    return config\n"
    )
    with pytest.raises(UserError) as error:
        parsed(f"--config={path}")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_config(tmp_path):
    (tmp_path / "b.py").write_text("x = (")
    with pytest.raises(UserError, match=r"b\.py: line 1: '\(' was never closed .*; correct the config file$"):
        parsed(f"--config={tmp_path / 'b.py'}")
    without = pytest.raises(UserError, match=r"--config: the file has no get_config\(\)")
    with without, cli._flag_errors([], config_keys, cli.ALL_KEYS):
        raise AttributeError("module 'b' has no attribute 'get_config'")
