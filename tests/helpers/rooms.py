"""Rooms of the repository and the imports between them; `python -m tests.helpers.rooms [ROOT]` prints them.

A room is a folder directly below the package, a loose module of the package, a script at the top, or a folder
of code beside the package. An arrow leads from a room to each room that it imports.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

PACKAGE = "masktrack_jax"
BESIDE = ("benchmarks", "configs")


class House(NamedTuple):
    """Rooms, arrows (from, to), rooms on the longest chain of arrows, and the arrows that close a circle."""

    rooms: set[str]
    arrows: set[tuple[str, str]]
    floors: int
    circles: set[tuple[str, str]]


def look(root: Path) -> House:
    """The `House` of a checkout."""
    files = {path: room for path in _sources(root) if (room := _room(path.relative_to(root)))}
    rooms = set(files.values())
    arrows = {
        (room, other)
        for path, room in files.items()
        for module in _imports(path)
        if (other := _room_of_module(module, rooms)) and other != room
    }
    return House(rooms, arrows, *_climb(rooms, arrows))


def _sources(root: Path) -> list[Path]:
    return [
        *root.glob("*.py"),
        *(path for name in (PACKAGE, *BESIDE) for path in root.glob(f"{name}/**/*.py")),
    ]


def _room(path: Path) -> str | None:
    """The room of a file, None for the package's own `__init__`."""
    if path.parts[0] != PACKAGE:
        return path.parts[0]
    return None if path.parts[1] == "__init__.py" else f"{PACKAGE}.{path.parts[1].removesuffix('.py')}"


def _imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def _room_of_module(module: str, rooms: set[str]) -> str | None:
    parts = module.split(".")
    room = ".".join(parts[:2]) if parts[0] == PACKAGE else parts[0]
    return next((name for name in (room, f"{room}.py") if name in rooms), None)


def _climb(rooms: set[str], arrows: set[tuple[str, str]]) -> tuple[int, set[tuple[str, str]]]:
    """The number of floors, and the arrows that close a circle, which are left out of the count."""
    below = {room: sorted(there for here, there in arrows if here == room) for room in rooms}
    heights: dict[str, int] = {}
    circles: set[tuple[str, str]] = set()

    def height(room: str, path: tuple[str, ...]) -> int:
        if room not in heights:
            circles.update((room, other) for other in below[room] if other in path or other == room)
            others = [height(other, (*path, room)) for other in below[room] if (room, other) not in circles]
            heights[room] = 1 + max(others, default=0)
        return heights[room]

    return max((height(room, ()) for room in sorted(rooms)), default=0), circles


def main(root: str = ".") -> None:
    """Print the figures, and for each room the rooms that it imports."""
    house = look(Path(root))
    figures = {"rooms": house.rooms, "arrows": house.arrows, "circles": house.circles}
    print(
        ", ".join(f"{len(found)} {name}" for name, found in figures.items()),
        f"{house.floors} floors",
        sep=", ",
    )
    for room in sorted(house.rooms):
        others = sorted(there for here, there in house.arrows if here == room)
        print(f"  {room}: {', '.join(others) or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
