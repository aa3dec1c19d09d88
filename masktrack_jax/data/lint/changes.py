"""Find objects whose category seems to change: one ends where another one begins, at the same place."""

import numpy as np

from masktrack_jax.data.labels import LabelsFile
from masktrack_jax.data.values import Id, shown
from masktrack_jax.masks.overlap import overlap_ratios
from masktrack_jax.runtime.findings import Findings

SAME_PLACE = 0.5  # IoU of the last mask of one object and the first of another, a frame later


def note_category_changes(labels: LabelsFile, findings: Findings) -> None:
    """Note each pair of objects of different categories that may be one object with two names."""
    first: dict[tuple[Id, int], list[int]] = {}  # (video, frame) -> places of the objects that begin there
    last: dict[tuple[Id, int], list[int]] = {}
    for place, (record, pixels) in enumerate(zip(labels["annotations"], labels.pixels)):
        if seen := [frame for frame, number in enumerate(pixels) if number > 0]:
            first.setdefault((record["video_id"], seen[0]), []).append(place)
            last.setdefault((record["video_id"], seen[-1]), []).append(place)
    names = {record["id"]: shown(record.get("name")) for record in labels["categories"]}
    for (video_id, frame), begun in first.items():
        ended = last.get((video_id, frame - 1), [])
        if not ended:
            continue
        one, two = (
            [labels["annotations"][place]["segmentations"][at] for place in places]
            for places, at in ((ended, frame - 1), (begun, frame))
        )
        for row, column in np.argwhere(overlap_ratios(one, two) >= SAME_PLACE).tolist():
            places = ended[row], begun[column]
            before, after = (labels["annotations"][place]["category_id"] for place in places)
            if before != after:
                words = [
                    f"{labels.names[place]} ({names[number]})"
                    for place, number in zip(places, (before, after))
                ]
                example = f"video {shown(video_id)}, frame {frame}: {words[0]} goes on as {words[1]}"
                findings.note("objects that may change their category", example)
