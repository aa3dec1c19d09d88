"""Streams of every encoding, and pipes and disks that take no more, against what reaches the other end."""

import io
import os
import sys

import pytest

from masktrack_jax.runtime.cli import run
from masktrack_jax.runtime.errors import UserError


def replace(monkeypatch, descriptor, encoding="utf-8"):
    stream = io.TextIOWrapper(io.FileIO(descriptor, "w"), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


@pytest.mark.parametrize("encoding, shown", [("ascii", b"2 \\xd7 \\u2265"), ("latin-1", b"2 \xd7 \\u2265")])
def test_characters_that_an_encoding_lacks_are_escaped(monkeypatch, encoding, shown):
    reader, writer = os.pipe()
    with replace(monkeypatch, writer, encoding):
        run(print, "2 × ≥")
    assert os.read(reader, 99) == shown + b"\n"
    os.close(reader)


def say_all(count, then=None):
    for _ in range(count):
        print("a line")
    if then:
        raise then


@pytest.mark.parametrize("count, then", [(9999, None), (1, None), (1, UserError("2 errors"))])
def test_a_reader_that_leaves_ends_the_command_without_a_word(monkeypatch, capfd, count, then):
    reader, writer = os.pipe()
    os.close(reader)
    with replace(monkeypatch, writer), pytest.raises(SystemExit) as ended:
        run(say_all, count, then)
    assert ended.value.code == 141 and capfd.readouterr().err == ""


def test_a_full_disk_is_one_line(monkeypatch, capfd):
    with replace(monkeypatch, os.open("/dev/full", os.O_WRONLY)), pytest.raises(SystemExit):
        run(print, "a line")
    assert capfd.readouterr().err.startswith("error: the output cannot be written: No space left on device")


def test_other_errors_of_pipes_are_not_hidden():
    with pytest.raises(BrokenPipeError):
        run(say_all, 0, BrokenPipeError(32, "Broken pipe"))
