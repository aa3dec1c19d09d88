"""Find the files of a data set below a root folder: YouTube-VIS 2019, 2021, 2022, OVIS or custom data.

Supported layouts are the published archives and those of detectron2-based code, mmtracking and the authors'
code. Packed data sets (`data.pack`) are found too. This module looks only at names and reads no files. Upper
and lower case are the same. A folder may hold another of its name (train/train), as an archive does that is
unpacked into a folder of its name.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from masktrack_jax.data.vis import find_frame
from masktrack_jax.runtime import copies
from masktrack_jax.runtime.errors import UserError

# The splits, and their names in folders and files.
SPLITS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}

# The annotations of a split in a data set's folder; the first that exists is used.
ANNOTATIONS = (
    "{split}.json",  # YouTube-VIS 2019 as published; detectron2-based code expects it for all
    "{split}/instances.json",  # YouTube-VIS 2021 and 2022 as published
    "annotations_{split}.json",  # OVIS as published
    "annotations/annotations_{split}.json",
    "annotations/{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}_sub.json",  # the authors' code and its forks
    "instances_{split}.json",
    "instances_{split}_sub.json",
    "annotations/youtube_vis_20*_{split}.json",  # converted by mmtracking
    "annotations/ovis_{split}.json",
)
OWN = "instances.json"  # a folder with only this file has only training videos

# The folder that `file_names` are relative to; the first that holds the frames is used.
FRAMES = (
    "{split}/JPEGImages",
    "{split}",
    "{split}_all_frames/JPEGImages",
    "JPEGImages/{split}",
    "Images/{split}",
    "images/{split}",
    "JPEGImages",
)

PACKED_INFO = "dataset_info.json"  # written by TFDS
PACKED_ANNOTATIONS = "{split}.annotations.json"
PACKED_DIGESTS = "annotations.sha256"  # of the annotations, as sha256sum writes and checks them

DEPTH = 3  # levels of folders below the root that are searched
SHOWN = 12  # most data sets to list
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")

Names = Callable[[pathlib.Path], list[str]]  # the sorted names in a folder


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """A split: its annotations file, and the folders that may hold its frames. `packed`: see `data.pack`."""

    split: str
    annotations: pathlib.Path
    frames: tuple[pathlib.Path, ...] = ()
    packed: bool = False


@dataclasses.dataclass(frozen=True)
class DatasetFiles:
    """A data set: its folder, its name (see `plain_name`; "" if unknown) and its splits by name."""

    folder: pathlib.Path
    name: str
    splits: dict[str, SplitFiles]

    @property
    def packed(self) -> bool:
        """Whether it is packed (see `data.pack`)."""
        return any(files.packed for files in self.splits.values())

    def is_called(self, name: str) -> bool:
        """Whether `name` is the name of the data set, in any spelling, or of its folder."""
        folder = self.folder.parent if self.packed else self.folder
        return name == folder.name or (self.name != "" and plain_name(name) == self.name)


def plain_name(text: str) -> str:
    """The data set that a path names: "youtubevis2019", … or "ovis"; "" if it names none."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    if found := re.search(r"(?:youtube|yt)vis(?:20)?(19|21|22)", letters):
        return f"youtubevis20{found[1]}"
    return "ovis" if re.search(r"(?<![a-z])ovis(?![a-z])", text.lower()) else ""


def find_datasets(root: str | pathlib.Path) -> list[DatasetFiles]:
    """All data sets in or below the folder `root`, in the order of their paths."""
    root = _existing(root)
    found = []
    for folder in _folders(root, DEPTH):
        if splits := _packed(folder) or _splits(folder):
            found.append(DatasetFiles(folder, _name(root, folder, splits), splits))
    return found


def _existing(root: str | pathlib.Path) -> pathlib.Path:
    """The folder `root`, whose backslashes may be separators, and whose ~ the shell may have left."""
    if copies.is_dir(place := copies.local(str(root))):
        return pathlib.Path(place)
    for path in (os.path.expanduser(root), str(root).replace("\\", "/")):
        if os.path.isdir(path):
            return pathlib.Path(path)
    advice = "set config.data.root to the folder of the data sets"
    if os.path.isfile(root):
        if str(root).lower().endswith(ARCHIVES):
            raise UserError(f"{root}: is an archive; unpack it and {advice}")
        raise UserError(f"{root}: is a file; {advice}, or config.data.train_annotations to a file of labels")
    if re.match(r"[A-Za-z]:[\\/]", str(root)):
        raise UserError(f"{root}: no such folder; give its path on this system, not that of Windows")
    raise UserError(f"{root}: no such folder; {advice}")


def _name(root: pathlib.Path, folder: pathlib.Path, splits: dict[str, SplitFiles]) -> str:
    """The name of a data set, taken from its path (innermost part first) or else from its file names."""
    parts = (*root.resolve().parts[-2:], *folder.relative_to(root).parts)
    places = ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    places += [files.annotations.name for files in splits.values()]
    return next(filter(None, map(plain_name, places)), "")


def find_dataset(root: str | pathlib.Path, name: str = "") -> DatasetFiles:
    """The only data set in or below `root`, or the one with this name.

    `name` is the name of a data set ("youtubevis2019", in any spelling) or of a folder. If no data set has
    this name, but exactly one has no known name, that one is returned. Unpacked files are preferred to the
    same data set packed. Raises a UserError that lists the data sets found or the places searched.
    """
    found = find_datasets(root)
    if not found:
        raise UserError(
            f"{root}: no data set in or below it; looked for {looked_for('train')}, … up to {DEPTH} folders "
            f"deep{_advice(_existing(root))}"
        )
    chosen = found
    if name:
        chosen = [one for one in found if one.is_called(name)]
        chosen = chosen or [one for one in found if not one.name]
    if len({one.name for one in chosen}) == 1 and chosen[0].name:
        chosen = [one for one in chosen if not one.packed] or chosen
    if len(chosen) == 1:
        return chosen[0]
    listed = [f"{one.folder}" + (f" ({one.name})" if one.name else "") for one in chosen or found]
    there = ", ".join(listed[:SHOWN]) + f", … ({len(listed)})" * (len(listed) > SHOWN)
    if chosen:
        raise UserError(f"{root}: holds several data sets: {there}; set config.data.root to one of them")
    raise UserError(f"{root}: has no {name}, only {there}; set config.data.name, or root to its folder")


def _advice(root: pathlib.Path) -> str:
    """What to do about a folder without data sets, as the end of a message."""
    above = root.resolve().parent
    if _packed(above) or _splits(above):
        return f"; set config.data.root to {above}, which holds one"
    for name in _names(root):
        if name.lower().endswith(ARCHIVES):
            return f"; {name} is not unpacked: unpack it there"
    return ""


def find_split(dataset: DatasetFiles, split: str, advice: str = "") -> SplitFiles:
    """The files of a split. Raises a UserError that lists the places searched and ends with `advice`."""
    if split in dataset.splits:
        return dataset.splits[split]
    above = dataset.folder.resolve().parent
    if split in _splits(above):
        advice = f"; set config.data.root to {above}, which has one"
    raise UserError(
        f"{dataset.folder}: has no {split} split (it has {', '.join(dataset.splits)}); "
        f"looked for {looked_for(split)}{advice}"
    )


def looked_for(split: str) -> str:
    """The places where a split's annotations are searched, as text for a message."""
    places = [form.format(split="|".join(SPLITS[split])) for form in ANNOTATIONS]
    return ", ".join(places + [OWN] * (split == "train"))


def choose_frames(files: SplitFiles, first_frames: Sequence[str]) -> pathlib.Path:
    """The folder of `files.frames` that holds these frames (relative paths).

    Raises a UserError that lists the folders if none does.
    """
    absent = {
        folder: [name for name in first_frames if not copies.is_file(find_frame(folder, name))]
        for folder in files.frames
    }
    for folder, names in absent.items():
        if not names:
            return folder
    name = min(absent.values(), key=len, default=first_frames)[0]
    tried = ", ".join(map(str, absent)) or "the usual folders beside it"
    raise UserError(f"{files.annotations}: frame {name} is in none of {tried}; unpack the frames there")


def is_part(name: str) -> bool:
    """Whether a folder of this name is part of a data set, and so cannot contain data sets."""
    splits = "|".join(name for names in SPLITS.values() for name in names)
    parts = rf"(?:{splits})(?:_all_frames)?|jpegimages|images|annotations"
    return re.fullmatch(parts, name.lower()) is not None


def _folders(root: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    """Yield `root` and the folders below it that contain a JSON file or a part of a data set.

    Such parts are not searched, since they contain frames or annotations.
    """
    try:
        inside = copies.inside(root)
    except OSError:  # no permission
        return
    if any(is_part(name) if folder else name.lower().endswith(".json") for name, folder in inside):
        yield root
    for name, folder in inside:
        if depth and folder and not name.startswith(".") and not is_part(name):
            yield from _folders(root / name, depth - 1)


def _splits(folder: pathlib.Path) -> dict[str, SplitFiles]:
    """The splits in a folder, by name."""
    found: dict[str, SplitFiles] = {}
    names = functools.cache(_names)  # some of its folders may hold a million frames
    for split, spelled in SPLITS.items():
        for form in ANNOTATIONS:
            places = [place for name in spelled for place in _paths(folder, form.format(split=name), names)]
            if files := list(filter(copies.is_file, places)):
                found[split] = SplitFiles(split, files[0], _frames(folder, split, names))
                break
    if not found and (files := list(filter(copies.is_file, _paths(folder, OWN, names)))):
        found["train"] = SplitFiles("train", files[0], _frames(folder, "train", names))
    return found


def _frames(folder: pathlib.Path, split: str, names: Names) -> tuple[pathlib.Path, ...]:
    """The existing folders that may hold a split's frames.

    A validation split without such folders was taken from the training split and uses its folders. The
    frames of a folder `annotations` are beside it.
    """
    forms = [form.format(split=name) for name in SPLITS[split] for form in FRAMES]
    places = [place for form in forms for place in _paths(folder, form, names)]
    places += [place / place.name for place in places]
    there = tuple(dict.fromkeys(filter(copies.is_dir, places)))
    if not there and split == "valid":
        there = _frames(folder, "train", names)
    if not there and folder.name.lower() == "annotations":
        there = _frames(folder.parent, split, names)
    return there


def _paths(folder: pathlib.Path, form: str, names: Names) -> list[pathlib.Path]:
    """The existing paths below a folder that match a form of `ANNOTATIONS` or `FRAMES`."""
    places = [folder]
    for part in form.split("/"):
        places = [inner for place in places for inner in _inside(place, part, names)]
    return places


def _inside(place: pathlib.Path, part: str, names: Names) -> list[pathlib.Path]:
    """The entries of a folder that match a part of a form: of its case, else of any, else one folder down."""
    if copies.exists(place / part):
        return [place / part]
    for folder in (place, place / place.name):
        if found := [folder / name for name in names(folder) if fnmatchcase(name.lower(), part.lower())]:
            return found
    return []


def _names(folder: pathlib.Path) -> list[str]:
    try:
        return copies.names(folder)
    except OSError:  # no folder, or no permission
        return []


def _packed(folder: pathlib.Path) -> dict[str, SplitFiles]:
    """The splits of a packed data set's folder, by name."""
    if not copies.is_file(folder / PACKED_INFO):
        return {}
    places = {split: folder / PACKED_ANNOTATIONS.format(split=split) for split in SPLITS}
    return {
        split: SplitFiles(split, place, (folder,), packed=True)
        for split, place in places.items()
        if copies.is_file(place)
    }
