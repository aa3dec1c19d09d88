"""Set-up of all tests: four CPU devices in one process, strict shapes, and slow fixtures."""

# ruff: noqa: E402 – JAX reads its settings when it is imported

import os
from pathlib import Path

from tests.helpers.xla import QUICK_COMPILATION

# Before JAX is imported. Four devices on two cores wait for each other in reductions, and XLA's default
# thread pool is too small for that: NPROC makes it larger.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
XLA_FLAGS = f"--xla_force_host_platform_device_count=4 {QUICK_COMPILATION}"
if XLA_FLAGS not in os.environ.get("XLA_FLAGS", ""):  # pytest-xdist's workers inherit them
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_FLAGS}".strip()
os.environ["NPROC"] = "16"

from jaxtyping import install_import_hook

# Shapes and types in signatures are checked at run time here, and only here.
TYPED = tuple(f"masktrack_jax.{room}" for room in ("ops", "losses", "models", "training"))
install_import_hook(TYPED, "beartype.beartype")

import jax
import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.configs import load_config

# Of the files test_fuzz.py: the same examples each time; --hypothesis-profile=long asks for many others.
settings.register_profile("short", max_examples=40, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=2000, deadline=None, database=None)
settings.load_profile("short")


# Rooms and files whose tests compile a network, the longest first. `make check` leaves them out, and
# `make test` starts with them, so that both workers are busy to the end.
NETWORK = (
    "training",
    "goldens",
    "runtime/test_processes.py",
    "test_scripts.py",
    "models",
    "inference",
    "interop",
)
MAX_MAPPINGS = 15_000


def pytest_configure(config):
    """Keep compiled programs in pytest's cache folder, or where JAX is told to, for all processes."""
    config.addinivalue_line("markers", "network: compiles a network, or starts processes that do")
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_collection_modifyitems(items):
    """Mark the tests of networks and put them first."""
    tests = Path(__file__).parent

    def place(item):
        path = item.path.relative_to(tests).as_posix()
        return next((i for i, start in enumerate(NETWORK) if path.startswith(start)), len(NETWORK))

    for item in items:
        if place(item) < len(NETWORK) or "tiny_model" in item.fixturenames:
            item.add_marker("network")
    items.sort(key=place)


@pytest.fixture(scope="module", autouse=True)
def few_mappings():
    """Drop compiled programs after a file that leaves many: each takes hundreds of the process's mappings.

    At Linux's limit, 65,530 (`vm.max_map_count`), XLA ends the process.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MAX_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def goldens():
    """Arrays recorded from mmdet and mmtracking: single operations and a training pair (tests/goldens)."""
    from tests.goldens.recorded import arrays

    return arrays("units") | arrays("train_A")


@pytest.fixture
def tiny_config():
    return load_config("tiny")


@pytest.fixture(scope="session")
def tiny_model():
    """The network of configs/tiny.py for three classes, and its variables with weights of some size."""
    from masktrack_jax.models.masktrack_rcnn import build_model

    model = build_model(load_config("tiny"), 3)
    variables = model.init_variables(jax.random.key(1))
    rng = np.random.default_rng(2)

    def louder(path, value):
        # Heads start near zero: scores all alike would test no order. Without the mean over its inputs a
        # weight answers to what differs between places.
        name = jax.tree_util.keystr(path)
        if not any(part in name for part in ("rpn_head", "box_head", "logits_kernel")) or value.ndim == 1:
            return value
        noise = rng.normal(0, 1, value.shape)
        noise -= noise.mean(tuple(range(value.ndim - 1)), keepdims=True)
        return value + (noise / np.sqrt(np.prod(value.shape[:-1]))).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(louder, variables)


@pytest.fixture(scope="session")
def tiny_images():
    """Two images (2, 64, 96, 3) uint8 of blocks and noise."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.integers(0, 200, (2, 8, 12, 3)), np.ones((1, 8, 8, 1)))
    return (blocks + rng.integers(0, 56, (2, 64, 96, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A generated data set for configs/tiny.py: the path of its annotations."""
    from masktrack_jax.data.generate.options import GeneratorOptions
    from masktrack_jax.data.generate.write import generate

    options = GeneratorOptions(videos=4, frames=5, height=64, width=96, seed=1)
    return generate(tmp_path_factory.mktemp("tiny") / "data", options)
