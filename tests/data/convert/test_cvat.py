"""The converter from CVAT: masks drawn here are converted exactly and pass the linter."""

import numpy as np
import pytest

from masktrack_jax.data.convert.convert import convert
from masktrack_jax.runtime.errors import UserError
from tests.helpers.convert import (
    HEIGHT,
    WIDTH,
    assert_masks,
    assert_nothing_left,
    converted,
    corners,
    rectangle,
    write_image,
)


def cvat(tracks, size=5, head="", meta=""):
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("truck", "bus"))
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{head}<annotations><version>1.1</version><meta><task>'
        f"<size>{size}</size><labels>{labels}</labels>{meta}</task></meta>{tracks}</annotations>"
    )


def track(label, *shapes, number=0):
    return f'<track id="{number}" label="{label}" source="manual">{"".join(shapes)}</track>'


def box(frame, x1, y1, x2, y2, outside=0, **more):
    more = "".join(f' {key}="{value}"' for key, value in more.items())
    return (
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" xtl="{x1}" ytl="{y1}" '
        f'xbr="{x2}" ybr="{y2}" z_order="0"{more}><attribute name="a">1</attribute></box>'
    )


def polygon(frame, points, outside=0):
    text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon frame="{frame}" outside="{outside}" occluded="0" keyframe="1" points="{text}"/>'


def cvat_mask(frame, rle, left, top, width, height, outside=0):
    return (
        f'<mask frame="{frame}" outside="{outside}" occluded="0" keyframe="1" rle="{rle}" left="{left}" '
        f'top="{top}" width="{width}" height="{height}"/>'
    )


CVAT_TRACKS = (
    # key frames 0 and 2, gone at 3: moves by 2 pixels a frame
    track("truck", box(0, 2, 3, 8, 9), box(2, 6, 3, 12, 9), box(3, 6, 3, 12, 9, outside=1)),
    # every frame written, gone at 1, back at 2, then it stays to the end
    track(
        "bus",
        polygon(0, corners(15, 2, 20, 8)),
        polygon(1, corners(15, 2, 20, 8), outside=1),
        polygon(2, corners(16, 2, 21, 8)),
    ),
    # rows of 4: 0110 / 1111 / 0000; stands still until the outside after the last frame
    track("bus", cvat_mask(3, "1, 2, 1, 4, 4", 10, 12, 4, 3), cvat_mask(5, "12", 10, 12, 4, 3, outside=1)),
    # turned by a quarter about (25, 10): 6 wide and 2 high become 2 wide and 6 high
    track("bus", box(4, 22, 9, 28, 11, rotation="90.0")),
    track("truck", '<points frame="0" outside="0" points="1,1"/>'),
)


@pytest.fixture
def cvat_folder(tmp_path):
    folder = tmp_path / "crossing"
    for frame in range(5):
        write_image(folder / "images" / f"frame_{frame:06d}.PNG", shade=frame)
    (folder / "annotations.xml").write_text(cvat("".join(CVAT_TRACKS)))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_cvat_tracks(cvat_folder, tmp_path, whole):
    given = cvat_folder if whole else cvat_folder / "annotations.xml"
    dataset, found, left_out = converted("cvat", given, tmp_path / "out")
    assert [x.name for x in dataset.categories] == ["bus", "truck"]
    assert dataset.videos[0].file_names[4] == "crossing/frame_000004.PNG"
    (truck,) = found["crossing"]["truck"]
    assert_masks(truck, [rectangle(2, 3, 8, 9), rectangle(4, 3, 10, 9), rectangle(6, 3, 12, 9), None, None])
    drawn, painted, turned = found["crossing"]["bus"]
    late = rectangle(16, 2, 21, 8)
    assert_masks(drawn, [rectangle(15, 2, 20, 8), None, late, late, late])
    paint = rectangle(11, 12, 13, 13) | rectangle(10, 13, 14, 14)
    assert_masks(painted, [None, None, None, paint, paint])
    assert_masks(turned, [None] * 4 + [rectangle(24, 7, 26, 13)])
    assert left_out == {"shapes that are not boxes, polygons or masks (points)": 1}


def test_cvat_counts_frames_as_the_task_took_them(cvat_folder, tmp_path):
    meta = "<start_frame>10</start_frame><frame_filter>step=5</frame_filter>"
    text = cvat(track("bus", box(20, 1, 1, 9, 9), box(25, 1, 1, 9, 9, outside=1)), meta=meta)
    (cvat_folder / "annotations.xml").write_text(text)
    _, found, _ = converted("cvat", cvat_folder, tmp_path / "out")
    assert_masks(found["crossing"]["bus"][0], [None, None, rectangle(1, 1, 9, 9), None, None])


def test_cvat_turns_boxes_clockwise(cvat_folder, tmp_path):
    text = cvat(track("bus", box(0, 8, 7, 22, 13, rotation="30.0")))
    (cvat_folder / "annotations.xml").write_text(text)
    _, found, _ = converted("cvat", cvat_folder, tmp_path / "out")
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    back = ((x - 15) + 1j * (y - 10)) * np.exp(-1j * np.pi / 6)  # into the box's own axes; y points down
    distance = np.maximum(abs(back.real) - 7, abs(back.imag) - 3)
    mask = found["crossing"]["bus"][0][0]
    assert mask[distance < -0.75].all() and not mask[distance > 0.75].any()
    assert (distance < -0.75).sum() > 40


ENTITIES = '<!DOCTYPE annotations [<!ENTITY a "b">]>'


@pytest.mark.parametrize(
    "text, match",
    [
        (cvat("", head=ENTITIES), "has a document type"),
        (cvat("")[:-5], "is not valid XML"),
        (cvat(track(" ", box(1, 1, 1, 2, 2))), "a <track> has label=' ', which is not valid"),
        (cvat('<image id="0"/>'), "export the task as `CVAT for video 1.1`"),
        ("<other/>", "export the task as `CVAT for video 1.1`"),
        (cvat(track("bus", box(4, 1, 1, 2, 2)), size=4), "frame 4 is not among the frames 0 to 3"),
        (cvat("", size="x"), "its <meta> cannot be read"),
        (cvat(track("bus", box(9, 1, 1, 2, 2))), "frame 9 is not among the frames 0 to 4"),
        (cvat(track("bus", box(1, 1, 1, 2, 2), box(1, 1, 1, 2, 2))), "frame 1 has two shapes"),
        (
            cvat(track("bus", box(1, 1, 1, 2, 2, outside="maybe"))),
            "a <box> has outside=.maybe., expected 0",
        ),
        (cvat(track("bus", box("x", 1, 1, 2, 2))), "a <box> has frame='x'"),
        (cvat(track("bus", box(1, "a", 1, 2, 2))), "the points of a <box> of frame 1 cannot be read"),
        (
            cvat(track("bus", polygon(1, [(1, 1), (2, 2)]))),
            "no object in any video .*: 4 polygons with under 3 points",
        ),
        (
            cvat(track("bus", polygon(0, corners(1, 1, 5, 5)), polygon(2, corners(1, 1, 5, 5)[:3]))),
            "between frames 0 and 2 a <polygon> changes its points",
        ),
        (cvat(track("bus", cvat_mask(1, "1, 2", 1, 1, 2, 2))), "the <mask> of frame 1 cannot be read"),
        (cvat(track("bus", cvat_mask(1, "0, 4", 29, 1, 2, 2))), "the <mask> of frame 1 cannot be read"),
        (
            cvat('<track id="0" label="a" task_id="1"/><track id="1" label="a" task_id="2"/>'),
            "holds several tasks",
        ),
    ],
)
def test_bad_cvat_is_one_line(cvat_folder, tmp_path, text, match):
    (cvat_folder / "annotations.xml").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        convert("cvat", cvat_folder, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert_nothing_left(tmp_path)


def test_what_is_not_read_is_counted(cvat_folder, tmp_path):
    expected = convert("cvat", cvat_folder, tmp_path / "one")
    path = cvat_folder / "annotations.xml"
    text = path.read_text().replace('outside="1"', 'outside="true"')
    path.write_text(text.replace("</annotations>", '<tag label="bus" frame="1"/></annotations>'))
    (cvat_folder / "other.xml").write_text(text)
    done = convert("cvat", cvat_folder, tmp_path / "two")
    assert done.counts == expected.counts
    more = {"elements that are not tracks (tag)": 1, "XML files beside or below the export": 1}
    assert done.left_out == expected.left_out | more
