"""A Hugging Face dataset of images or texts with labels, as a dataset of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reweight_core import Dataset, UserError, decode, mean_and_std
from reweight_data_own.assembly import dataset_of, dataset_of_rows
from reweight_data_own.encoded_images import open_images
from reweight_data_own.hub import Opened, open_dataset
from reweight_data_own.labels import Labels, alike, checked, index
from reweight_data_own.lines import lines_of
from reweight_data_own.options import HfOptions
from reweight_data_own.texts import features_of, representation_of, transform_of


def load(config: HfOptions) -> Dataset:
    """Load a dataset from disk or by name: images, or texts as features.

    Images are decoded into memory, or while training if they are too many. Texts become rows of TF-IDF, fitted to the
    training split, or of a model's hidden states.

    Raises:
        UserError: if the dataset, a column, a label, an image or the model is not what it should be.
    """
    opened = open_dataset(config)
    classes, labels = _labels(opened)
    if opened.kind == "texts":
        texts, settings = _texts(opened), (config.text_model, config.text_features)
        rows = features_of(texts, *settings)
        return dataset_of_rows(rows, labels, {}, classes, representation_of(texts["train"], *settings))
    images = open_images(opened, config)
    mean, std = mean_and_std(images["train"])
    padding = max(1, min(images["train"].shape[2:]) // 8)
    return dataset_of(images, labels, {}, classes=classes, mean=mean, std=std, augment="crop-flip", padding=padding)


def read_new(
    config: HfOptions, path: Path
) -> tuple[np.ndarray, tuple[str, ...]] | tuple[np.ndarray, tuple[str, ...], str]:
    """Read new examples: an image, or a file with a text on each line.

    Returns:
        Images uint8 (1, channels, height, width), or features float32 (N, features, 1, 1), and a name for each; of
        features what they are made by, too.

    Raises:
        UserError: if they cannot be read.
    """
    opened = open_dataset(config)
    if opened.kind == "images":
        shape = open_images(opened, config)["train"].shape
        pixels = decode(path, (shape[2], shape[3]))[0]
        if shape[1] == 1:
            # the weights of ITU-R 601, as Pillow turns colour into grey
            pixels = np.rint(pixels @ [0.299, 0.587, 0.114])[:, :, None].astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None], (str(path),)
    texts = lines_of(path)
    if not texts:
        raise UserError(f"{path}: is empty")
    settings = opened.texts("train"), config.text_model, config.text_features
    rows = np.concatenate([*transform_of(*settings)(texts)])
    names = tuple(f"{path}:{line}" for line in range(1, len(texts) + 1))
    return rows[:, :, None, None], names, representation_of(*settings)


def _texts(opened: Opened) -> dict[str, Sequence[str]]:
    return {part: opened.texts(part) for part in opened.parts}


def _labels(opened: Opened) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Return the names of the classes and the labels of each part as class indices."""
    parts, names = {}, opened.class_names("train", opened.label)
    for part, rows in opened.parts.items():
        where = opened.where(part)
        values = opened.labels(part, opened.label)
        if values.dtype.kind == "i" and values.min(initial=0) < 0 and part != "train":
            raise UserError(f"{where}: has rows without a label (below 0); name another split by --hf-{part}")
        seen = checked(values, len(rows), f"{where}, {opened.label}")
        true = None
        if opened.true_label is not None and opened.true_label in rows.column_names:
            source = f"{where}, {opened.true_label}"
            true = checked(opened.labels(part, opened.true_label), len(rows), source)
            true = alike(true, opened.class_names(part, opened.true_label), seen, names, source)
        parts[part] = Labels(seen, true, where)
    if names is None:
        return index(parts)
    for part, labels in parts.items():
        if opened.class_names(part, opened.label) != names:
            raise UserError(f"{opened.where(part)}: has other classes than {opened.where('train')}")
        if max(labels.best.max(), labels.seen.max()) >= len(names):
            raise UserError(f"{labels.source}: has a label outside 0..{len(names) - 1}")
    return names, parts
