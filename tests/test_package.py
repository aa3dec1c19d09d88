"""The public names of the package; imports and --help load neither JAX nor OpenCV."""

import subprocess
import sys

import pytest

import masktrack_jax
from tests.helpers.configs import ROOT

SCRIPTS = ("train.py", "evaluate.py", "track.py")
MODULES = (
    "data.generate",
    "data.pack",
    "data.lint",
    "data.convert",
    "evaluation.validate",
    "interop",
    "interop.export",
)
# Runs a script or module in place of Python's own start, and says which heavy modules it has loaded.
WATCH = """
import runpy, sys
kind, name, *rest = sys.argv[1:]
sys.argv = [name, *rest]
try:
    {"path": runpy.run_path, "module": runpy.run_module}[kind](name, run_name="__main__")
except SystemExit as end:
    status = end.code
else:
    status = 0
print("LOADED", *sorted({"jax", "cv2"} & set(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


def run_watched(*arguments):
    """Exit status, standard output and the heavy modules that were loaded."""
    command = [sys.executable, "-c", WATCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    (loaded,) = (line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return done.returncode, done.stdout, loaded.split()[1:]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_of_a_script_is_light(name):
    status, stdout, loaded = run_watched("path", ROOT / name, "--help")
    assert "--" in stdout and loaded == []
    assert status in (0, 1)  # absl's --help exits with 1


@pytest.mark.parametrize("name", MODULES)
def test_help_of_a_command_is_light(name):
    status, stdout, loaded = run_watched("module", f"masktrack_jax.{name}", "--help")
    assert status == 0 and stdout.startswith("usage: ") and loaded == []


def test_print_config_is_light_and_needs_no_workdir():
    arguments = ("--config", ROOT / "configs" / "demo.py", "--print_config", "--config.train.steps=7")
    status, stdout, loaded = run_watched("path", ROOT / "train.py", *arguments)
    assert status == 0 and loaded == []
    assert any(line.split()[:3] == ["*", "train.steps", "7"] for line in stdout.splitlines())


def test_the_package_is_light_until_it_is_used():
    names = "load_segmenter, VideoSegmenter, evaluate"
    code = "import sys, masktrack_jax; dir(masktrack_jax); assert not {'jax', 'cv2'} & set(sys.modules)"
    code += f"; from masktrack_jax import {names}, __version__; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_names_of_the_package():
    from masktrack_jax.evaluation.score import score_files
    from masktrack_jax.inference.load import load_segmenter
    from masktrack_jax.inference.segmenter import VideoSegmenter

    assert masktrack_jax.load_segmenter is load_segmenter
    assert masktrack_jax.VideoSegmenter is VideoSegmenter
    assert masktrack_jax.evaluate is score_files
    assert set(masktrack_jax.__all__) <= set(dir(masktrack_jax))
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        _ = masktrack_jax.train_everything


def test_the_package_is_typed():
    assert (ROOT / "masktrack_jax" / "py.typed").exists()
