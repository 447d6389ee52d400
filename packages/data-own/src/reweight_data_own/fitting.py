"""Defaults of a user's own data, by what they are and how many: looked up before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reweight_core import UserError, fitting_defaults
from reweight_data_own.files import count_rows
from reweight_data_own.options import FeaturesOptions, HfOptions


def fitting_features(config: FeaturesOptions) -> Mapping[str, Any]:
    """Return what fits the rows of ROOT/train; nothing if it cannot be read, which `load` tells."""
    try:
        rows = count_rows(config)
    except UserError:
        return {}
    return fitting_defaults("features", rows) if rows else {}


def fitting_hf(config: HfOptions) -> Mapping[str, Any]:
    """Return what fits the rows of the training split; nothing if there is none, which `load` tells."""
    from reweight_data_own.hub import kind_and_rows

    try:
        kind, rows = kind_and_rows(config)
    except UserError:
        return {}
    return fitting_defaults(kind, rows) if rows else {}
