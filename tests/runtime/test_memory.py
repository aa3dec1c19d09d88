"""Too little memory is one line with a cure; other errors are not taken for it."""

import resource

import pytest

from masktrack_jax.runtime import cli, memory
from masktrack_jax.runtime.errors import UserError

GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234567890 bytes.\nBuffers: ..."
ERRORS = {
    "the device has too little memory for 1234567890 bytes (RESOURCE_EXHAUSTED": RuntimeError(GPU),
    "the machine has too little memory (MemoryError)": MemoryError(),
    "the machine has too little memory (std::bad_alloc)": RuntimeError("std::bad_alloc"),
    "the machine has too little memory (can't start new thread)": RuntimeError("can't start new thread"),
    "for 7.45 GiB (Unable to allocate 7.45 GiB": MemoryError("Unable to allocate 7.45 GiB for an array"),
}


@pytest.mark.parametrize("words", ERRORS)
def test_a_shortage_is_one_line(words, capsys):
    def main():
        raise ERRORS[words]

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    line = capsys.readouterr().err
    assert ended.value.code == 1 and line.startswith("error: ") and line.count("\n") == 1
    assert words in line and "use a smaller batch (config.train.batch_size" in line


def test_other_errors_are_raised():
    def main():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cli.run(main)


@pytest.mark.parametrize("limit, refused", [(2**30, True), (2**34, False), (resource.RLIM_INFINITY, False)])
def test_a_limit_too_low_for_jax_is_refused(monkeypatch, limit, refused):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    if refused:
        with pytest.raises(UserError, match=r"the limit of memory is 1024 MiB .* ulimit -v unlimited"):
            memory.check_address_space()
    else:
        memory.check_address_space()
