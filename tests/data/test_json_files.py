"""The readers of JSON: every encoding and kind of file that a command accepts, and one line for the rest."""

import bz2
import gc
import gzip
import json
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest

from masktrack_jax.data.json_files import (
    open_results,
    read_json,
    read_labels,
    read_object,
    read_results,
    read_text,
    write_json,
    write_text,
)
from masktrack_jax.evaluation.score import score_files
from masktrack_jax.evaluation.validate import validate
from masktrack_jax.runtime.errors import UserError
from tests.helpers.annotations import annotations, cocovid, compressed, object_mask

TEXT = '{"name": "Bär"}'
TRACKS = [{"video_id": 7, "category_id": 9, "score": 0.5, "segmentations": [compressed(object_mask()), None]}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text(TEXT, encoding=encoding)
    assert read_json(path) == read_object(path) == {"name": "Bär"}


def test_text_with_and_without_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.txt").write_text("a\nä", encoding=encoding)
        assert read_text(tmp_path / "a.txt") == "a\nä"
    (tmp_path / "a.txt").write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match=r"a\.txt: is not UTF-8; save it as UTF-8"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_text(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file"),
        (b"", "is empty; copy or write it again"),
        (b"\0" * 99, "is empty; copy or write it again"),
        (b"<!DOCTYPE html>", "is not JSON but a web page or XML; download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; fetch the file with"),
        (pickle.dumps([]), "is not JSON but a pickle of Python; write its content as JSON"),
        (bz2.compress(b"{}"), "is not JSON but packed by bzip2; unpack it"),
        (b'{\n "a": }', "is not valid JSON at line 2 column 7"),
        ("Bär".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
        ("中文".encode("gbk"), "is not UTF-8; save it as UTF-8"),
        (b"\xff\xd8\xff\xe0 jpeg", "is not JSON but a picture; check the path"),
        (gzip.compress(b"{}", mtime=0), "is not JSON but packed by gzip; unpack it"),
        (b"[" * 100_000, "is not JSON that can be read"),
        (b"1" * 10_000, r"is not JSON that can be read \(Exceeds the limit [^:;]*\); correct the file"),
        (b'{"a": [1], "b": 2, "a": []}', "has the key 'a' twice in one object; keep one of them"),
    ],
)
@pytest.mark.parametrize("read", [read_json, read_object, read_labels, read_results])
def test_unreadable_files_are_one_line_that_names_them(tmp_path, read, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_object, "[1]", "is not a JSON object but a list"),
        (read_labels, "[1]", "is not an object with `videos` and `categories`"),
        (read_results, "{}", "is not a JSON list of tracks but an object"),
        (read_results, "7", "is not a JSON list of tracks but a number"),
        (read_results, "null", "is not a JSON list of tracks but null"),
    ],
)
def test_the_wrong_kind_of_content_is_one_line(tmp_path, read, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and "a.json" in str(caught.value)


def test_a_folder_is_one_line(tmp_path):
    for read in (read_json, read_labels, read_results, read_text):
        with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)


def test_the_garbage_collector_stays_as_it_was(tmp_path):
    (tmp_path / "a.json").write_text(TEXT)
    gc.disable()
    try:
        read_json(tmp_path / "a.json")
        assert not gc.isenabled()
    finally:
        gc.enable()
    read_json(tmp_path / "a.json")
    assert gc.isenabled()


def test_results_of_a_zip(tmp_path):
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("out/results.json", "[]")
        archive.writestr("results.json", json.dumps(TRACKS))
        archive.writestr("__MACOSX/results.json", "x")
        archive.writestr("notes.txt", "x")
    assert read_results(path) == TRACKS
    results = open_results(path)
    assert results.found == ("results.json", "out/results.json")
    assert results.others == ("__MACOSX/results.json", "notes.txt")
    path.rename(tmp_path / "upload")  # known by its content
    assert read_results(tmp_path / "upload") == TRACKS
    (tmp_path / "results.json").write_text(json.dumps(TRACKS))
    assert open_results(tmp_path / "results.json") == (TRACKS, True, (), ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_results_in_any_encoding_say_whether_the_servers_read_it(tmp_path, encoding, packed):
    content, path = json.dumps(TRACKS).encode(encoding), tmp_path / "results.json"
    path.write_bytes(content)
    if packed:
        path = tmp_path / "upload.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("results.json", content)
    results = open_results(path)
    assert results.content == TRACKS and results.utf8 == (encoding == "utf-8")


def test_broken_json_in_a_zip_names_both(tmp_path):
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("results.json", "[{")
    with pytest.raises(UserError, match=r"upload\.zip:results\.json: is not valid JSON at line 1"):
        read_results(tmp_path / "upload.zip")


def test_results_from_a_pipe(tmp_path):
    """As in `evaluate.py --results <(zcat results.json.gz)`: a pipe can be read once only."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(json.dumps(TRACKS),), daemon=True)
    writer.start()
    assert read_results(path) == TRACKS
    writer.join(10)


def test_annotations_of_mmtracking_are_read_by_every_command(tmp_path):
    truth, converted, results = (tmp_path / f"{name}.json" for name in ("truth", "converted", "results"))
    truth.write_text(json.dumps(annotations()))
    converted.write_text(json.dumps(cocovid(annotations())))
    results.write_text(json.dumps(TRACKS))
    labels = read_labels(converted)
    assert [video["file_names"] for video in labels["videos"]] == [
        ["v7/0.jpg", "v7/1.jpg"],
        ["v3/0.jpg", "v3/1.jpg"],
    ]
    scores = [score_files(path, results, tmp_path / "metrics.json") for path in (truth, converted)]
    assert scores[0]["AP"] == scores[1]["AP"] == pytest.approx(1)
    assert validate(results, converted).errors == {}


def test_a_list_of_images_alone_does_not_make_annotations_mmtrackings(tmp_path):
    content = annotations() | {"images": []}
    content["annotations"][0]["segmentations"][0] = compressed(object_mask())
    (tmp_path / "truth.json").write_text(json.dumps(content))
    assert read_labels(tmp_path / "truth.json") == content
    del content["annotations"]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    assert read_labels(tmp_path / "truth.json") == content


def test_written_json_is_read_back(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"counts": b"04", "score": np.float32(0.5), "id": np.int64(3), "name": "Bär"}, indent=1)
    assert read_json(path) == {"counts": "04", "score": 0.5, "id": 3, "name": "Bär"}
    with pytest.raises(UserError, match="not written, the content is not JSON"):
        write_json(path, float("nan"), indent=None)
    assert read_json(path)["id"] == 3 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [2**28 + 1, 2**60])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, size):
    """Of any stated size; nothing is read."""
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", b"[" + b" " * 10**5)

    def grown(archive):
        read(archive)
        archive.filelist[0].file_size = size

    read = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", grown)
    with pytest.raises(UserError, match=rf"\d+ bytes would unpack to {size}; zip results\.json again"):
        read_results(path)


def test_other_methods_of_packing(tmp_path):
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:  # unpacks without a limit
        archive.writestr("results.json", "[]")
    with pytest.raises(UserError, match=r"results\.json is not packed by the usual method, deflate; zip it"):
        read_results(path)


def test_results_of_a_zip_made_on_windows(tmp_path):
    path = tmp_path / "UPLOAD.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("out\\results.json", json.dumps(TRACKS).encode("utf-8-sig"))
    assert open_results(path) == (TRACKS, False, ("out\\results.json",), ())


def test_half_surrogates_are_written_as_escapes(tmp_path):
    write_text(tmp_path / "page.html", "é \ud800")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "é \\ud800"


@pytest.mark.parametrize("read", [read_json, read_text, open_results])
def test_a_device_is_not_read_to_its_end(read):
    with pytest.raises(UserError, match=r"/dev/zero: cannot be read \(is a device\); check the path"):
        read("/dev/zero")
