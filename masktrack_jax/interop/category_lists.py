"""Category lists of well-known data sets, and category lists read from files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from masktrack_jax.checkpoints.categories import plain_names
from masktrack_jax.data.json_files import read_json
from masktrack_jax.data.records import check_categories
from masktrack_jax.data.values import record_error
from masktrack_jax.runtime.errors import UserError

Category = tuple[int, str]  # id, name


def _names(text: str) -> list[str]:
    return text.split()


YOUTUBEVIS2019 = _names("""
    person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train
    horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant
    snowboard boat shark mouse frog eagle earless_seal tennis_racket
""")
YOUTUBEVIS2021 = _names("""
    airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox frog
    giant_panda giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit shark skateboard
    snake snowboard squirrel surfboard tennis_racket tiger train truck turtle whale zebra
""")
OVIS = _names("""
    Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard Parrot Monkey
    Rabbit Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehicle
""")
COCO = _names("""
    person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign
    parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie
    suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard
    tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot
    hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard
    cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier
    toothbrush
""")
COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = [i for i in range(1, 91) if i not in COCO_UNUSED_IDS]

# The (id, name) of each label.
LISTS: dict[str, list[Category]] = {
    "youtubevis2019": list(enumerate(YOUTUBEVIS2019, start=1)),
    "youtubevis2021": list(enumerate(YOUTUBEVIS2021, start=1)),
    "ovis": list(enumerate(OVIS, start=1)),
    "coco": [(i, name.replace("_", " ")) for i, name in zip(COCO_IDS, COCO, strict=True)],
}
# The list that a network with this number of classes was most likely trained on.
LIKELY = {40: "youtubevis2019", 25: "ovis", 80: "coco"}


def read_categories(choice: str) -> list[Category]:
    """Return the categories of a known list, by its name, or of a JSON file (annotations or a list of names).

    Raises a UserError for any other file.
    """
    if choice in LISTS:
        return LISTS[choice]
    path = Path(choice)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        known = ", ".join(LISTS)
        raise UserError(f"{choice}: no such file ({error}); give one, or one of {known}") from None
    content = read_json(path)
    try:
        if isinstance(content, dict) and isinstance(content.get("categories"), list):
            records = check_categories(content["categories"], functools.partial(_stop, path))
            found = [(number, record["name"]) for number, record in records.items()]
        else:
            found = with_ids(content)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: has no categories; give annotations or a JSON list of names") from None
    if not found:
        raise UserError(f"{path}: names no category; give annotations or a JSON list of names")
    return found


def _stop(path: Path, kind: str, where: str, problem: str) -> None:
    del kind
    raise record_error(path, where, problem)


def with_ids(names: Sequence[str]) -> list[Category]:
    """Return names with ids: the ids of the known list with the same names, else 1, 2, …"""
    if not all(isinstance(name, str) for name in names):
        raise TypeError("not a name")
    for categories in LISTS.values():
        if plain_names(names) == plain_names([name for _, name in categories]):
            return categories
    return list(enumerate(names, start=1))
