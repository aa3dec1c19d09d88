"""Too little memory, said in one line."""

import contextlib
import re

from masktrack_jax.runtime.errors import UserError

LEAST = 3 * 2**30  # bytes of addresses that JAX and its threads need
SIGNS = ("RESOURCE_EXHAUSTED", "bad_alloc", "can't start new thread", "Cannot allocate memory")
CURE = (
    "use a smaller batch (config.train.batch_size, config.inference.frames_per_call) or smaller frames "
    "(config.data.scales, config.inference.scale), or raise the limit, if there is one (ulimit -v)"
)


def shortage(error: Exception) -> str:
    """The line for an exception that is due to too little memory; empty for other exceptions."""
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and not any(sign in text for sign in SIGNS):
        return ""
    asked = re.search(r"allocat\w+ (\d[\d.]*\s?\w*)", text)
    size = f" for {asked[1]}" if asked else ""
    kind = "device" if "RESOURCE_EXHAUSTED" in text else "machine"
    return f"the {kind} has too little memory{size} ({text[:200] or type(error).__name__}); {CURE}"


def check_address_space() -> None:
    """Raise a UserError if a limit on addresses is too low for JAX, which would abort the process."""
    with contextlib.suppress(ImportError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit < LEAST:
            raise UserError(
                f"the limit of memory is {limit // 2**20} MiB (ulimit -v); JAX needs {LEAST // 2**20} MiB or "
                "more: raise it, for example with ulimit -v unlimited"
            )
