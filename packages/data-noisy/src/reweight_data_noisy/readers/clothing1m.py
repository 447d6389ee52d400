"""Clothing1M (Xiao et al., CVPR 2015): a million images of clothes with labels from the text around them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from reweight_core import Dataset, UserError
from reweight_data_noisy.options import LargeOptions
from reweight_data_noisy.readers.file_lists import Listed, data_root, dataset_of, read_labels, read_lines

CLASSES = (
    "T-Shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Downcoat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)

NEEDED = (
    "images/ and, in itself or in annotations/, the lists noisy_train_key_list.txt, noisy_label_kv.txt, "
    "clean_val_key_list.txt, clean_test_key_list.txt and clean_label_kv.txt, which the authors of Clothing1M give on "
    "request"
)


def load(config: LargeOptions) -> Dataset:
    """Load the noisy training list; the clean validation list is the meta set, the clean test list the test set.

    An image that is in a clean list is left out of training.

    Raises:
        UserError: if a list or an image is missing, or a listed image has no label.
    """
    root = data_root(config.data_root, NEEDED)
    lists = root / "annotations" if (root / "annotations").is_dir() else root
    noisy = read_labels(lists / "noisy_label_kv.txt", len(CLASSES), NEEDED)
    clean = read_labels(lists / "clean_label_kv.txt", len(CLASSES), NEEDED)
    meta = _listed(lists / "clean_val_key_list.txt", clean)
    test = _listed(lists / "clean_test_key_list.txt", clean)
    train = _listed(lists / "noisy_train_key_list.txt", noisy, set(meta.names) | set(test.names))
    return dataset_of(root, {"train": train, "test": test, "meta": meta}, CLASSES, config.image_size)


def _listed(path: Path, labels: dict[str, int], left_out: Collection[str] = ()) -> Listed:
    """Return the images that a list names, with their labels."""
    names = [name for name in read_lines(path, NEEDED) if name and name not in left_out]
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise UserError(f"{path}: {len(unknown)} images have no label in the lists, {unknown[0]} for example")
    return Listed(names, [labels[name] for name in names], path)
