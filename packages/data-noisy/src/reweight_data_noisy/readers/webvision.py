"""WebVision 1.0's first 50 classes ("mini"; Li et al., 2017): images and labels that a search engine gave."""

from __future__ import annotations

from pathlib import Path

from reweight_core import Dataset, UserError
from reweight_data_noisy.options import LargeOptions
from reweight_data_noisy.readers.file_lists import Listed, data_root, dataset_of, read_labels, read_lines

CLASSES, ALL_CLASSES = 50, 1000

VALIDATION = ("val_images_256", "val_images")
"""Where the official archives put the validation images: resized, or as they were."""

NEEDED = "google/, val_images_256/ (or val_images/) and info/ of WebVision 1.0, as its archives extract"


def load(config: LargeOptions) -> Dataset:
    """Load the images from Google of the first 50 classes; the validation images of these classes are the test set.

    Raises:
        UserError: if a list or an image is missing, or a line of a list is something else.
    """
    root = data_root(config.data_root, NEEDED)
    info = root / "info"
    folders = [name for name in VALIDATION if (root / name).is_dir()]
    if not folders:
        raise UserError(f"{root / VALIDATION[0]} is missing: --data-root must hold {NEEDED}")
    train = _first_classes(info / "train_filelist_google.txt", "")
    test = _first_classes(info / "val_filelist.txt", f"{folders[0]}/")
    # a line is a WordNet number and the names of the class
    synsets = [line.partition(" ")[2].partition(",")[0] for line in read_lines(info / "synsets.txt", NEEDED)]
    if len(synsets) < CLASSES:
        raise UserError(f"{info / 'synsets.txt'}: has {len(synsets)} lines; a line for each class is needed")
    return dataset_of(root, {"train": train, "test": test}, synsets[:CLASSES], config.image_size)


def _first_classes(path: Path, folder: str) -> Listed:
    labels = {name: label for name, label in read_labels(path, ALL_CLASSES, NEEDED).items() if label < CLASSES}
    return Listed([folder + name for name in labels], list(labels.values()), path)
