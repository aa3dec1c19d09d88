"""Random folder trees: every layout gives the same split, and any other tree gives a split or one line."""

from hypothesis import given
from hypothesis import strategies as st

from masktrack_jax.data.layouts import ANNOTATIONS, FRAMES, SPLITS, find_dataset, find_datasets, find_split
from masktrack_jax.data.splits import read_split
from masktrack_jax.runtime.errors import UserError
from tests.data.test_layouts import put

CASES = st.sampled_from([str, str, str.upper, str.title, str.lower])
WORDS = [
    "train",
    "Valid",
    "val",
    "test",
    "JPEGImages",
    "images",
    "annotations",
    "x",
    "ytvis_2019",
    "\u00e9 *[?",
]
FILES = ["train.json", "VALID.JSON", "instances.json", "annotations_val.json", "dataset_info.json", "a.zip"]


@given(data=st.data())
def test_the_same_split_from_every_layout(tmp_path_factory, data):
    """Any place of labels and of frames, in any case, in folders unpacked twice, below other folders."""
    top = tmp_path_factory.mktemp("tree")
    root = top.joinpath(*data.draw(st.lists(st.sampled_from(["sets", "mine", "a b"]), max_size=3)))
    split = data.draw(st.sampled_from(list(SPLITS)))
    name = data.draw(st.sampled_from(SPLITS[split]))
    case, twice = data.draw(CASES), data.draw(st.integers(0, 2))
    labels, frames = (
        data.draw(st.sampled_from(forms)).format(split=name).replace("20*", "2019")
        for forms in (ANNOTATIONS, FRAMES)
    )
    *folders, file = labels.split("/")
    folders, pictures = [case(part) for part in folders], [case(part) for part in frames.split("/")]
    if twice == 1 and folders:
        folders.append(folders[-1])
    if twice == 2:
        pictures.append(pictures[-1])
    put(root, "/".join([*folders, case(file)]), "/".join(pictures), split, labelled=True)
    found = find_dataset(top)
    dataset = read_split(find_split(found, split))
    assert found.folder == root and list(found.splits) == [split]
    assert [video.id // 10 for video in dataset.videos] == [1 + list(SPLITS).index(split)] * 2
    assert all(dataset.has_frame(video, t) for video in dataset.videos for t in range(2))


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(WORDS), max_size=5), st.sampled_from([*FILES, ""])), max_size=8
    ),
    st.lists(st.sampled_from(WORDS), max_size=2),
    st.sampled_from(["", "ovis", "ytvis19", "x"]),
)
def test_any_tree(tmp_path_factory, tree, below, name):
    """The files are empty."""
    top = tmp_path_factory.mktemp("tree")
    for folders, file in tree:
        folder = top.joinpath(*folders)
        folder.mkdir(parents=True, exist_ok=True)
        if file:
            (folder / file).touch()
    root = top.joinpath(*below)
    try:
        sets = find_datasets(root)
        assert all(one.splits for one in sets)
        read_split(find_split(find_dataset(root, name), "train"))
    except UserError as error:
        text = str(error)
        assert "\n" not in text and str(top) in text, text
