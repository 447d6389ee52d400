"""Opening a Hugging Face dataset: its parts, and which of its columns are what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np

from reweight_core import UserError, reason
from reweight_data_own.labels import LABEL_NAMES, TRUE_LABEL_NAMES
from reweight_data_own.options import HfOptions


@attrs.frozen(eq=False)
class Opened:
    """The parts of a dataset that a run uses.

    Attributes:
        name: what the user calls the dataset.
        parts: ``train``, and ``test`` and ``meta`` if there are any, each a `datasets.Dataset`.
        splits: what each part is called in the dataset.
        input: column of the images or texts.
        kind: which of the two.
        label: column of the labels that training sees.
        true_label: column of the true labels, or None.
    """

    name: str
    parts: Mapping[str, Any]
    splits: Mapping[str, str]
    input: str
    kind: Literal["images", "texts"]
    label: str
    true_label: str | None

    def where(self, part: str) -> str:
        """Say where a part is, for messages."""
        return f"{self.name}, split '{self.splits[part]}'"

    def labels(self, part: str, name: str) -> np.ndarray:
        """Return a column of a part as it is: whole numbers, or texts, (N,).

        Raises:
            UserError: if the part lacks it, or a value is missing.
        """
        values: np.ndarray = self._column(part, name).to_numpy()
        return np.array(values.tolist()) if values.dtype.hasobject else values

    def texts(self, part: str) -> list[str]:
        """Return the texts of a part (errors as `labels`)."""
        found: list[str] = self._column(part, self.input).to_pylist()
        return found

    def _column(self, part: str, name: str) -> Any:
        rows = self.parts[part]
        if name not in rows.column_names:
            raise UserError(f"{self.where(part)}: has no column '{name}'")
        column = rows.select_columns([name]).with_format("arrow")[:].column(name)
        if column.null_count:
            raise UserError(f"{self.where(part)}, row {column.is_null().to_numpy().argmax()}: {name} is missing")
        return column

    def class_names(self, part: str, column: str) -> tuple[str, ...] | None:
        """Return what the numbers in a column of labels stand for, if the dataset says it."""
        names = getattr(self.parts[part].features[column], "names", None)
        return None if names is None else tuple(names)


def open_dataset(config: HfOptions) -> Opened:
    """Open the dataset that the options name and find its columns.

    Raises:
        UserError: if it cannot be opened, or a split or a column is missing or not the only one that it could be.
    """
    if config.hf_name is None:
        raise UserError("--hf-name is missing: name a folder of a dataset (save_to_disk), or one of the Hub")
    name, found = config.hf_name, _opened(config.hf_name, config.hf_config, _changed(config.hf_name))
    wanted = {"train": config.hf_train, "test": config.hf_test, "meta": config.hf_meta}
    splits = {part: split or part for part, split in wanted.items() if split is not None or part in found}
    for part, split in splits.items():
        if split not in found:
            raise UserError(f"--hf-{part} {split}: {name} has the splits {', '.join(found)}")
    features = found[config.hf_train].features
    label = _named(name, features, config.label_column, LABEL_NAMES, "--label-column")
    if label is None:
        raise UserError(f"{name}: has no labels ({', '.join(LABEL_NAMES)}); name their column by --label-column")
    true_label = _named(name, features, config.true_label_column, TRUE_LABEL_NAMES, "--true-label-column")
    column, kind = _input(name, features, config.input_column, {label, true_label})
    parts = {part: found[split] for part, split in splits.items()}
    return Opened(name, parts, splits, column, kind, label, true_label)


def kind_and_rows(config: HfOptions) -> tuple[Literal["features", "images"], int]:
    """Return what a network will see of the training split, and how many rows it has.

    Raises:
        UserError: as `open_dataset`.
    """
    opened = open_dataset(config)
    return "images" if opened.kind == "images" else "features", len(opened.parts["train"])


_SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` leaves in a folder: of several splits, of one."""


def _changed(name: str) -> int:
    """Return when a dataset was saved, in nanoseconds; 0 if it is none that was."""
    return max((file.stat().st_mtime_ns for saved in _SAVED if (file := Path(name) / saved).is_file()), default=0)


@lru_cache(maxsize=1)
def _opened(name: str, config: str | None, changed: int) -> Mapping[str, Any]:
    """Open a dataset by folder or name: its splits by name. It is asked for again whenever options are merged."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"--data hf: needs datasets: pip install 'reweight-data-own[datasets]' ({error})") from error
    try:
        found = datasets.load_from_disk(name) if changed else datasets.load_dataset(name, config)
    except Exception as error:  # its loaders raise nearly anything
        raise UserError(f"--hf-name {name}: cannot be opened ({reason(error)})") from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def _named(name: str, features: Any, wanted: str | None, known: Sequence[str], flag: str) -> str | None:
    if wanted is not None and wanted not in features:
        raise UserError(f"{flag} {wanted}: {name} has the columns {', '.join(features)}")
    found = [wanted] if wanted is not None else [column for column in known if column in features]
    if len(found) > 1:
        raise UserError(f"{name}: has the columns {found[0]} and {found[1]}; name one by {flag}")
    return found[0] if found else None


def _input(
    name: str, features: Any, wanted: str | None, labels: set[str | None]
) -> tuple[str, Literal["images", "texts"]]:
    """Return the column of images, else of texts, and which it is."""
    import datasets

    if wanted is not None and wanted not in features:
        raise UserError(f"--input-column {wanted}: {name} has the columns {', '.join(features)}")
    candidates = [wanted] if wanted is not None else [column for column in features if column not in labels]
    images = [column for column in candidates if isinstance(features[column], datasets.Image)]
    texts = [column for column in candidates if getattr(features[column], "dtype", "") in ("string", "large_string")]
    found = images or texts
    if len(found) != 1:
        what = f"several ({', '.join(found)})" if found else "none"
        raise UserError(f"{name}: of columns with images or texts there are {what}; name one by --input-column")
    return found[0], "images" if images else "texts"
