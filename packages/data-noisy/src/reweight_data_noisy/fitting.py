"""Defaults of a user's own data, by what they are and how many: looked up before they are read."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reweight_core import fitting_defaults
from reweight_data_noisy.options import CsvOptions, FolderOptions


def fitting_folder(config: FolderOptions) -> Mapping[str, Any]:
    """Return what fits the files below ROOT/train; nothing if it cannot be listed, which `load` tells."""
    try:
        with os.scandir(config.data_root / "train" if config.data_root else "") as classes:
            examples = sum(len(os.listdir(entry)) for entry in classes if entry.is_dir())
    except OSError:
        return {}
    return fitting_defaults("images", examples) if examples else {}


def fitting_csv(config: CsvOptions) -> Mapping[str, Any]:
    """Return what fits the rows of ROOT/train.csv; nothing if it cannot be read, which `load` tells."""
    try:
        with open((config.data_root or Path()) / "train.csv", newline="", encoding="utf-8-sig") as file:
            columns = [name.strip() for name in next(csv.reader(file), [])]
            # a line is a row, unless a value goes over several
            examples = sum(1 for line in file if line.strip())
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return fitting_defaults("images" if "file" in columns else "features", examples) if examples else {}
