"""The generator: equal requests give equal bytes, and the labels are the visible pixels."""

import dataclasses
import filecmp
import json

import numpy as np
import pytest
from PIL import Image

from masktrack_jax.data.generate import __main__ as command
from masktrack_jax.data.generate import write
from masktrack_jax.data.generate.options import PRESETS, SHAPES, GeneratorOptions
from masktrack_jax.data.generate.render import render_frame
from masktrack_jax.data.generate.scene import sample_scene
from masktrack_jax.data.generate.write import generate
from masktrack_jax.data.vis import read_vis
from masktrack_jax.masks.segmentations import decode_segmentation
from masktrack_jax.runtime.errors import UserError

OPTIONS = GeneratorOptions(videos=6, seed=3, height=64, width=96, frames=12, leave=1.0, min_objects=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("generated") / "shapes"
    generate(output, OPTIONS)
    return output


def _same_files(left, right):
    names = sorted(str(path.relative_to(left)) for path in left.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(right)) for path in right.rglob("*") if path.is_file())
    _, different, failed = filecmp.cmpfiles(left, right, names, shallow=False)
    assert not different and not failed


def test_same_request_gives_same_bytes_with_any_number_of_processes(folder, tmp_path):
    generate(tmp_path / "again", OPTIONS)
    generate(tmp_path / "processes", OPTIONS, workers=2)
    _same_files(folder, tmp_path / "again")
    _same_files(folder, tmp_path / "processes")


def test_a_video_does_not_depend_on_the_number_of_videos(folder, tmp_path):
    generate(tmp_path / "two", dataclasses.replace(OPTIONS, videos=2))
    for path in (tmp_path / "two" / "JPEGImages").rglob("*.jpg"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "two")).read_bytes()


def test_another_seed_gives_another_video(tmp_path):
    first, second = (sample_scene(GeneratorOptions(videos=1, seed=seed), 0) for seed in (0, 1))
    assert not np.array_equal(render_frame(first, 0)[0], render_frame(second, 0)[0])


def test_layout_is_read_as_youtube_vis(folder):
    dataset = read_vis(folder / "instances.json")
    assert dataset.labelled and len(dataset.videos) == OPTIONS.videos
    assert [category.name for category in dataset.categories] == list(SHAPES)
    for video in dataset.videos:
        assert (video.length, video.height, video.width) == (OPTIONS.frames, OPTIONS.height, OPTIONS.width)
        assert dataset.objects_of(video)
        with Image.open(dataset.frame_path(video, 0)) as image:
            assert image.size == (OPTIONS.width, OPTIONS.height)


def test_masks_are_disjoint_and_boxes_and_areas_are_theirs(folder):
    content = json.loads((folder / "instances.json").read_text())
    covered = {}
    for record in content["annotations"]:
        for frame, segmentation in enumerate(record["segmentations"]):
            assert (
                (segmentation is None)
                == (record["bboxes"][frame] is None)
                == (record["areas"][frame] is None)
            )
            if segmentation is None:
                continue
            mask = decode_segmentation(segmentation, OPTIONS.height, OPTIONS.width)
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            box = [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
            assert record["bboxes"][frame] == box and record["areas"][frame] == mask.sum()
            total = covered.setdefault((record["video_id"], frame), np.zeros_like(mask))
            total += mask
    assert all(total.max() == 1 for total in covered.values())


def test_objects_leave_and_return(folder):
    returned = 0
    for record in json.loads((folder / "instances.json").read_text())["annotations"]:
        seen = np.array([segmentation is not None for segmentation in record["segmentations"]])
        first, last = np.flatnonzero(seen)[[0, -1]]
        returned += not seen[first : last + 1].all()
    assert returned >= OPTIONS.videos


def test_the_nearer_object_hides_the_farther():
    options = GeneratorOptions(
        videos=1,
        categories=("circle",),
        min_objects=8,
        max_objects=8,
        min_diameter=0.6,
        max_diameter=0.8,
        leave=0,
    )
    scene = sample_scene(options, 0)
    owner = render_frame(scene, 0)[1]
    hidden = 0
    for index in range(len(scene.sprites)):
        alone = render_frame(_only(scene, index), 0)[1] == 1
        beside = np.isin(owner, np.arange(index + 1, len(scene.sprites) + 1))
        assert beside[alone].all()  # its pixels belong to it or to something nearer
        hidden += np.count_nonzero(alone & (owner != index + 1))
        assert abs(alone.sum() - scene.sprites[index].area(0)) <= 0.03 * alone.sum() or _cut(alone)
    assert hidden > 0


def test_pillars_hide_every_object_and_change_nothing_else():
    options = GeneratorOptions(videos=1, seed=5, frames=4, leave=0)
    bare, walled = (sample_scene(dataclasses.replace(options, pillars=n), 0) for n in (0, 2))
    for frame in range(options.frames):
        (image, owner), (hidden_image, hidden_owner) = (render_frame(s, frame) for s in (bare, walled))
        wall = np.zeros(owner.shape, bool)
        for left, colour in walled.pillars:
            wall[:, left : left + colour.shape[1]] = True
        assert wall.any() and not hidden_owner[wall].any()
        assert (hidden_owner == owner)[~wall].all() and (hidden_image == image)[~wall].all()


def test_pillars_fit_a_narrow_frame():
    options = GeneratorOptions(videos=1, height=320, width=96, frames=1, pillars=3)
    for index in range(4):
        scene = sample_scene(options, index)
        render_frame(scene, 0)
        assert all(left >= 0 and left + colour.shape[1] <= 96 for left, colour in scene.pillars)


def test_objects_enter_late():
    options = GeneratorOptions(videos=1, frames=30, enter=1.0, leave=0, height=64, width=96)
    for index in range(5):
        scene = sample_scene(options, index)
        for sprite in scene.sprites:
            inside = ((sprite.centres > 0) & (sprite.centres < (96, 64))).all(axis=1)
            assert not inside[0] and inside[-1]


def test_speed_is_that_of_the_objects():
    steps = []
    for speed in (1.0, 3.0):
        options = GeneratorOptions(videos=1, frames=30, leave=0, speed=speed)
        scenes = (sample_scene(options, index) for index in range(10))
        moved = [np.abs(np.diff(sprite.centres, axis=0)) for scene in scenes for sprite in scene.sprites]
        steps.append(np.median(np.concatenate(moved)))
    assert 2.0 < steps[1] / steps[0] < 4.0


def _only(scene, index):
    return dataclasses.replace(scene, sprites=scene.sprites[index : index + 1])


def _cut(mask):
    return mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_same_category_objects_are_as_frequent_as_asked(probability):
    options = GeneratorOptions(videos=1, same_category=probability, height=32, width=32, frames=1)
    for index in range(12):
        labels = [sprite.label for sprite in sample_scene(options, index).sprites]
        assert (len(set(labels)) < len(labels)) == bool(probability)


def test_finished_request_is_reused_and_another_refused(folder, tmp_path):
    before = (folder / "instances.json").stat().st_mtime_ns
    generate(folder, OPTIONS)
    assert (folder / "instances.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"shapes: holds a data set generated with other options \(seed\)"):
        generate(folder, dataclasses.replace(OPTIONS, seed=4))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        generate(tmp_path, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_from_before_an_option_existed_is_reused(folder):
    path = folder / "instances.json"
    text = path.read_text()
    content = json.loads(text)
    del content["info"]["generator"]["pillars"]
    path.write_text(json.dumps(content))
    try:
        assert generate(folder, OPTIONS) == path
        with pytest.raises(UserError, match=r"other options \(pillars\)"):
            generate(folder, dataclasses.replace(OPTIONS, pillars=1))
    finally:
        path.write_text(text)


def test_nothing_is_left_of_a_broken_run(tmp_path, monkeypatch):
    def fail(task):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_video", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "shapes", OPTIONS)
    assert not list(tmp_path.iterdir())


def test_bad_options_are_one_line():
    for wrong in (
        {"videos": 0},
        {"min_objects": 5},
        {"categories": ("circle", "cube")},
        {"leave": 2.0},
        {"speed": 0},
    ):
        with pytest.raises(UserError, match="generator option") as caught:
            GeneratorOptions(**{"videos": 1, **wrong})
        assert "\n" not in str(caught.value)


def test_command(tmp_path, capsys):
    arguments = "--videos 1 --height 32 --width 48 --frames 2 --categories ring star --min-visible 0.1"
    command.main(["--output", str(tmp_path / "out"), *arguments.split()])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "instances.json")
    dataset = read_vis(tmp_path / "out" / "instances.json")
    assert [category.name for category in dataset.categories] == ["ring", "star"]


def test_presets_are_defaults_that_options_replace(tmp_path):
    arguments = "--preset hard --videos 1 --frames 2 --leave 0"
    command.main(["--output", str(tmp_path / "out"), *arguments.split()])
    wanted = {"videos": 1, **PRESETS["hard"], "frames": 2, "leave": 0}
    assert generate(tmp_path / "out", GeneratorOptions(**wanted)) == tmp_path / "out" / "instances.json"
    for preset in PRESETS.values():
        GeneratorOptions(videos=1, **preset)


def test_help_says_what_each_option_is(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(GeneratorOptions):
        assert field.metadata["comment"] in text
    with pytest.raises(UserError, match=r"--workers: is -1; must be 0 or more"):
        command.main(["--output", str(tmp_path / "a"), "--videos", "1", "--workers", "-1"])


def test_more_than_a_disk_holds_is_refused_before_memory_is_asked_for():
    for name in ("videos", "frames"):
        with pytest.raises(UserError, match=f"generator option {name}: is {10**12}; must be between 1 and"):
            GeneratorOptions(**({"videos": 1} | {name: 10**12}))


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--frames", "5", "--enter", "0.9"), "--enter: has no effect here; give --frames 8 or more"),
        (("--frames", "5", "--leave", "1"), "--leave: has no effect"),
        (
            ("--min-objects", "1", "--max-objects", "1", "--same-category", "1"),
            "--same-category: has no effect",
        ),
    ],
)
def test_a_flag_without_effect_is_refused(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        command.main(["--output", str(tmp_path / "a"), "--videos", "1", *flags])
    assert not (tmp_path / "a").exists()
