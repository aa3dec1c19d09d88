"""Accelerators to compile for, and what is known of them."""

import importlib.util
import math
import os
from collections.abc import MutableMapping
from dataclasses import dataclass, replace

from masktrack_jax.runtime.errors import UserError

GIB, TERA, GIGA = 2**30, 1e12, 1e9


@dataclass(frozen=True)
class Target:
    """A kind of chip, and how many of them a program is compiled for."""

    name: str  # as JAX's topologies call it
    platform: str  # the key of `models.forms.PLATFORMS`
    memory: float  # bytes of one chip
    bfloat16: float  # FLOP/s of products in bfloat16
    float32: float  # FLOP/s of products of float32 arrays at JAX's default precision
    bandwidth: float  # bytes/s of the memory
    link: float  # bytes/s that a chip sends to others in a reduction
    clock: float = 0.0  # cycles/s of `estimated_cycles`; 0: the compiler estimates none
    shape: str = ""  # devices: "2x2"
    accelerator: str = ""  # the value of TPU_ACCELERATOR_TYPE, without the number
    cores: int = 1  # of a chip, in that number

    @property
    def title(self) -> str:
        """The flag's text for this target."""
        return f"{self.name}:{self.shape}" if self.shape not in ("", "1") else self.name

    @property
    def chips(self) -> int:
        """The number of devices."""
        return math.prod(int(side) for side in self.shape.split("x")) if self.shape else 1


# TPUs: peak in bfloat16, bandwidth and links are from Google's page of each version
# (docs.cloud.google.com/tpu/docs/v5e, v5p, v6e): 1600, 4800 and 3200 Gbit/s over 4, 6 and 4 links of a
# chip, of which a chip of a 2 × 2 has two. Memory is what libtpu calls available when a program exceeds it.
# The clock is the peak over the products of a cycle: 131,072 FLOP on v5e, 262,144 on v5p, 524,288 on v6e.
# By the `estimated_cycles` of a product of two matrices of 4096 × 4096 it reaches 97, 96 and 87 % of these.
# By default JAX multiplies float32 on TPUs in one pass of bfloat16, hence the same peak.
# H100 SXM5 80 GB: NVIDIA's data sheet, dense (without sparsity). At JAX's default precision float32 is
# multiplied as TF32. NVLink moves 450 GB/s each way.
KINDS = {
    "v5e": Target(
        "v5e", "tpu", 15.75 * GIB, 197 * TERA, 197 * TERA, 819 * GIGA, 100 * GIGA, 1.5e9, "2x2", "v5litepod"
    ),
    "v5p": Target(
        "v5p", "tpu", 95.74 * GIB, 459 * TERA, 459 * TERA, 2765 * GIGA, 200 * GIGA, 1.75e9, "2x2x1", "v5p", 2
    ),
    "v6e": Target(
        "v6e", "tpu", 31.25 * GIB, 918 * TERA, 918 * TERA, 1600 * GIGA, 200 * GIGA, 1.75e9, "2x2", "v6e"
    ),
    "h100": Target("h100", "gpu", 84929347584, 989 * TERA, 495 * TERA, 3350 * GIGA, 450 * GIGA),
    # Not an accelerator: this machine, by two cores of AVX-512, to compare estimates with times.
    "cpu": Target("cpu", "cpu", 16 * GIB, 0.1 * TERA, 0.2 * TERA, 20 * GIGA, 20 * GIGA),
}

EXTRAS = {
    "tpu": ("libtpu",),
    "gpu": ("jax_cuda13_plugin", "jax_cuda12_plugin"),
}  # one of the modules is needed
NAMES = {"tpu": "tpu", "gpu": "cuda"}  # of the extra of pyproject.toml

# What the CUDA compiler is told of a GPU that is not there, as XLA prints it on one.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  clock_rate_ghz: 1.98 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def find_target(text: str) -> Target:
    """The target of a flag such as "v5e:2x2", "h100" or "h100:8"; raises a UserError for another text."""
    name, _, shape = text.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise UserError(f"--target={text}: is not known; use one of {', '.join(KINDS)}, and :2x2 for a slice")
    sides = (shape or kind.shape or "1").split("x")
    if not all(side.isdecimal() and int(side) for side in sides) or (
        kind.platform == "gpu" and len(sides) > 1
    ):
        example = f"{name}:{kind.shape or 8}"
        raise UserError(f"--target={text}: {shape!r} is no shape of {name}; give one such as {example}")
    return replace(kind, shape="x".join(sides))


def check_compiler(target: Target) -> None:
    """Raise a UserError that names the extra to install if the target's compiler is missing."""
    modules = EXTRAS.get(target.platform, ())
    if modules and not any(importlib.util.find_spec(module) for module in modules):
        extra = NAMES[target.platform]
        raise UserError(
            f'--target={target.title}: its compiler is not installed; pip install "masktrack-jax[{extra}]", '
            "which needs no such device"
        )


def prepare(target: Target, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what JAX and the target's compiler read from the environment, before JAX is imported.

    Only this process is changed. It computes on the CPU, and leaves accelerators of this machine alone.
    """
    environment["JAX_PLATFORMS"] = "cpu"
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no warnings of slow compilation
    if target.platform == "tpu":
        chips = target.chips
        defaults = {
            "TPU_SKIP_MDS_QUERY": "1",  # do not ask the cloud which TPU this machine has
            "TPU_ACCELERATOR_TYPE": f"{target.accelerator}-{max(chips, 4) * target.cores}",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside a training run on this machine
        }
        environment.update(defaults)
    if target.platform == "gpu":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
        # Without a card no algorithm can be tried out.
        flags = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()


def devices(target: Target) -> list:
    """The target's devices, which compile but do not run."""
    import jax
    from jax.experimental import topologies

    if target.platform == "cpu":
        return jax.devices("cpu")[:1]
    if target.platform == "tpu":
        return list(topologies.get_topology_desc(target.title, "tpu").devices)
    # JAX lowers for "cuda" only if that is one of its backends, which it leaves out where there is no GPU
    # (github.com/jax-ml/jax/issues/23971). This process compiles for it only, so the CPU's client stands in.
    from jax.extend.backend import backends

    backends().setdefault("cuda", backends()["cpu"])
    found = topologies.get_topology_desc(platform="cuda", target_config=H100, topology=f"1x1x{target.chips}")
    return list(found.devices)
