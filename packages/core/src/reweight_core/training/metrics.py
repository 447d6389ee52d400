"""What an epoch's weights and trusted examples say of wrong labels, where those are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from reweight_core.data.prepare import PreparedData
from reweight_core.engine.sample_table import SampleTable


def weight_figures(samples: SampleTable, data: PreparedData) -> dict[str, float | None]:
    """Describe the weights that the examples had when they were last visited."""
    seen = samples.tensors["visits"] > 0
    weights, of_clean, of_corrupted = samples.tensors["last_weight"][seen], None, None
    if data.corrupted is not None:
        corrupted = torch.from_numpy(data.corrupted).to(seen.device)[seen]
        of_clean, of_corrupted = weights[~corrupted], weights[corrupted]
    return {
        "noise_auroc": noise_auroc(samples.tensors["last_weight"], samples, data),
        "zero_weight_ratio": (weights == 0).float().mean().item(),
        "mean_weight_clean": _mean(of_clean),
        "mean_weight_corrupted": _mean(of_corrupted),
    }


def noise_auroc(weights: Tensor, samples: SampleTable, data: PreparedData) -> float | None:
    """Area under the ROC curve of a small weight as a sign of a corrupted label; None where it is undefined.

    Args:
        weights: of the training examples, (N,).
        samples: which of them were visited.
        data: which of their labels are wrong.
    """
    seen = samples.tensors["visits"].cpu().numpy() > 0
    if data.corrupted is None or len(set(data.corrupted[seen])) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    values = weights.cpu().numpy()[seen]
    return float(roc_auc_score(data.corrupted[seen], -values)) if np.isfinite(values).all() else None


def purity(trusted: Mapping[str, Tensor], data: PreparedData) -> dict[str, float]:
    """Return the share of right labels in each set of training examples as ``NAME_purity``; of empty sets nothing.

    Args:
        trusted: positions in the training set, int64 (k,), by the name of the set.
        data: which labels are wrong; where that is not known, there is no figure.
    """
    if data.corrupted is None:
        return {}
    corrupted = torch.from_numpy(data.corrupted).float()
    return {f"{name}_purity": 1 - corrupted[ids.cpu()].mean().item() for name, ids in trusted.items() if len(ids)}


def _mean(values: Tensor | None) -> float | None:
    return None if values is None or len(values) == 0 else values.mean().item()
