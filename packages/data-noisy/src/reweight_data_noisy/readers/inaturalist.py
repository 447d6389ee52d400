"""iNaturalist 2018 (Van Horn et al., CVPR 2018): photographs of 8,142 species, a long tail by nature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reweight_core import Dataset, UserError, reason
from reweight_data_noisy.options import LargeOptions
from reweight_data_noisy.readers.file_lists import Listed, data_root, dataset_of

NEEDED = "train2018.json, val2018.json and train_val2018/, as the archives of iNaturalist 2018 extract"


def load(config: LargeOptions) -> Dataset:
    """Load the training list; the validation list is the test set. Labels are true.

    torchvision's reader knows folders only, and the official split is in these lists.

    Raises:
        UserError: if a list or an image is missing, or a list is not what it should be.
    """
    root = data_root(config.data_root, NEEDED)
    lists = {part: root / name for part, name in (("train", "train2018.json"), ("test", "val2018.json"))}
    contents = {part: _read(path) for part, path in lists.items()}
    try:
        species = {category["id"]: str(category["name"]) for category in contents["train"]["categories"]}
        classes = {number: index for index, number in enumerate(sorted(species))}
        parts = {part: _listed(content, classes, lists[part]) for part, content in contents.items()}
    except (KeyError, TypeError) as error:
        raise UserError(f"{root}: the lists are not those of iNaturalist 2018 ({reason(error)})") from error
    return dataset_of(root, parts, [species[number] for number in classes], config.image_size, trusted=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: --data-root must hold {NEEDED}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error


def _listed(content: Any, classes: dict[int, int], path: Path) -> Listed:
    """Return the images that a list names; an annotation gives an image its category."""
    category = {annotation["image_id"]: annotation["category_id"] for annotation in content["annotations"]}
    names, labels = [], []
    for image in content["images"]:
        number = category.get(image["id"])
        if number not in classes:
            raise UserError(f"{path}: {image['file_name']} has no annotation, or one of an unknown category")
        names.append(str(image["file_name"]))
        labels.append(classes[number])
    return Listed(names, labels, path)
