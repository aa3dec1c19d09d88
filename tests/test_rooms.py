"""The structure of the repository stays as docs/architecture.md draws it; import-linter holds the directions.

The oracle is the syntax tree of every file, read by `tests.helpers.rooms`.
"""

from tests.helpers.configs import ROOT
from tests.helpers.rooms import PACKAGE, look


def test_rooms_and_arrows_stay_few() -> None:
    house = look(ROOT)
    assert len(house.rooms) <= 20
    assert len(house.arrows) < 75  # six of them are of `plan`, which puts parts of the whole package together
    assert house.floors <= 7
    assert not house.circles


def test_no_module_lies_loose_in_the_package() -> None:
    files = sorted(path.name for path in (ROOT / PACKAGE).iterdir() if path.is_file())
    assert files == ["__init__.py", "py.typed"]


def test_a_circle_is_found(tmp_path) -> None:
    for room, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        folder = tmp_path / PACKAGE / room
        folder.mkdir(parents=True)
        (folder / "code.py").write_text(f"def late():\n    from {PACKAGE}.{other} import code\n")
    house = look(tmp_path)
    assert len(house.rooms) == len(house.arrows) == 4 and house.floors == 4
    assert house.circles == {(f"{PACKAGE}.c", f"{PACKAGE}.a")}
