"""What an import tells: what was loaded, what stayed at its initialisation and why, what went unused."""

from masktrack_jax.checkpoints.categories import PER_CLASS, plain_names
from masktrack_jax.config.training import PARTS
from masktrack_jax.interop.sources import EPSILON

SHOWN = 8  # names of unused tensors


def part_of(path):
    """The part of the network (backbone, fpn, …) that a parameter belongs to."""
    return path.split("/")[1]


def depends_on_classes(path):
    """Whether a parameter has rows for each class."""
    return path.startswith(tuple(PER_CLASS))


def account_of(file, found, table, values, ours, theirs, matches):
    """Lines on the import of `values` {our name: array}, `table` being `names.table` of the whole network.

    `ours`, `theirs` are (id, name) of the labels (`theirs` None: not known), `matches` the place of each of
    ours among theirs, or None.
    """
    whole = set(map(part_of, table))
    counts = {part: sum(part_of(path) == part for path in values) for part in PARTS if part in whole}
    yield "loaded: " + ", ".join(f"{part} ({count} tensors)" for part, count in counts.items() if count)
    unnamed = found.classes is not None and not theirs
    absent = [part for part, count in counts.items() if not count]
    for path in table:
        if path not in values and counts[part_of(path)] and not unnamed:
            absent.append(path.partition("/")[2])
    if absent:
        yield f"left at initialisation, not in the file: {', '.join(absent)}"
    if unnamed:
        yield "left at initialisation, the file's classes being unknown (--file-categories): all class layers"
    elif theirs and plain_names([name for _, name in ours]) != plain_names([name for _, name in theirs]):
        taken = [name for (_, name), place in zip(ours, matches) if place is not None]
        new = [name for (_, name), place in zip(ours, matches) if place is None]
        yield f"class layers, by name: {len(taken)} of {len(ours)} categories: {', '.join(taken) or 'none'}"
        if new:
            yield f"left at initialisation, not among the file's categories: {', '.join(new)}"
    if found.epsilon != EPSILON:
        yield f"batch norm: the file's epsilon of {found.epsilon:g} turned into {EPSILON:g}"
    used = {found.origin[table[path].name][0] for path in values}
    unused = [n for n in file.tensors if n not in used and not n.endswith("num_batches_tracked")]
    if unused:
        more = f", … ({len(unused)} tensors)" if len(unused) > SHOWN else ""
        yield f"unused in the file: {', '.join(unused[:SHOWN])}{more}"
