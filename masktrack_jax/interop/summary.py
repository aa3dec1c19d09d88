"""Report on an import: tensors loaded, parameters left at initialisation and why, and unused tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from masktrack_jax.checkpoints.categories import PER_CLASS, plain_names, unmatched
from masktrack_jax.config.training import PARTS
from masktrack_jax.interop.category_lists import Category
from masktrack_jax.interop.files import WeightsFile
from masktrack_jax.interop.names import Entry
from masktrack_jax.interop.sources import EPSILON, Translated

SHOWN = 8  # most names of unused tensors to list


class Labels(NamedTuple):
    """The categories of the network (`ours`) and of the file (`theirs`, None if unknown).

    places: the index in `theirs` of each of `ours`, or None.
    """

    ours: list[Category]
    theirs: list[Category] | None
    places: list[int | None]


def part_of(path: str) -> str:
    """Return the part of the network (backbone, fpn, …) that a parameter belongs to."""
    return path.split("/")[1]


def depends_on_classes(path: str) -> bool:
    """Return whether a parameter has values for each class."""
    return path.startswith(tuple(PER_CLASS))


def report(
    file: WeightsFile,
    translated: Translated,
    table: Mapping[str, Entry],
    values: Mapping[str, np.ndarray],
    labels: Labels,
) -> Iterator[str]:
    """Yield the report on the import of `values` {our name: array}; `table` covers the whole network."""
    whole = set(map(part_of, table))
    counts = {part: sum(part_of(path) == part for path in values) for part in PARTS if part in whole}
    yield "loaded: " + ", ".join(f"{part} ({count} tensors)" for part, count in counts.items() if count)
    unnamed = translated.num_classes is not None and not labels.theirs
    absent = [part for part, count in counts.items() if not count]
    for path in table:
        if path not in values and counts[part_of(path)] and not unnamed:
            absent.append(path.partition("/")[2])
    if absent:
        yield f"left at initialisation, not in the file: {', '.join(absent)}"
    if unnamed:
        yield (
            "left at initialisation, as the file's categories are unknown (--file-categories): "
            "all class layers"
        )
    else:
        yield from _report_categories(labels)
    if translated.epsilon != EPSILON:
        yield f"batch norm: the file's epsilon of {translated.epsilon:g} converted to {EPSILON:g}"
    used = {translated.origin[table[path].name].name for path in values}
    unused = [n for n in file.tensors if n not in used and not n.endswith("num_batches_tracked")]
    if unused:
        more = f", … ({len(unused)} tensors)" if len(unused) > SHOWN else ""
        yield f"unused in the file: {', '.join(unused[:SHOWN])}{more}"


def _report_categories(labels: Labels) -> Iterator[str]:
    """Yield the categories whose class layers were loaded, if those of file and network differ."""
    ours = [name for _, name in labels.ours]
    if not labels.theirs or plain_names(ours) == plain_names([name for _, name in labels.theirs]):
        return
    taken = [name for name, place in zip(ours, labels.places) if place is not None]
    yield f"class layers, by name: {len(taken)} of {len(ours)} categories: {', '.join(taken) or 'none'}"
    if new := unmatched(ours, [label for label, place in enumerate(labels.places) if place is not None]):
        yield f"left at initialisation, not among the file's categories: {new}"
    if unused := unmatched([name for _, name in labels.theirs], labels.places):
        yield f"categories of the file that are left out: {unused}"
