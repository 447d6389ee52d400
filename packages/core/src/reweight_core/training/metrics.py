"""The figures of a run: what is written after every epoch, and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reweight_core.data.prepare import PreparedData
from reweight_core.engine.epoch_sums import EpochSums
from reweight_core.engine.sample_table import SampleTable
from reweight_core.machine.meters import peak_memory
from reweight_core.runs.checkpoint import best_epoch
from reweight_core.training.held_out import OF_AN_EPOCH
from reweight_core.training.state import TrainingState


def means(sums: EpochSums) -> dict[str, float | None]:
    """Return the means of an epoch: losses, accuracies on observed labels, and examples that a step rests on.

    This waits until the device has finished its steps.
    """
    examples = sums.labels.sum()
    return {
        "train_loss": (sums.train_loss / sums.examples).item(),
        "train_accuracy": (sums.hits.sum() / examples).item(),
        "train_balanced_accuracy": (sums.hits / sums.labels)[sums.labels > 0].mean().item(),
        "top_class_ratio": (sums.predictions.max() / examples).item(),
        "meta_loss": (sums.meta_loss / sums.meta_steps).item() if sums.meta_steps.item() else None,
        "effective_examples": (sums.effective_examples / sums.steps).item(),
        "zero_step_ratio": (sums.zero_steps / sums.steps).item(),
        "skipped_steps": int(sums.skipped_steps.item()),
    }


def weight_figures(samples: SampleTable, data: PreparedData) -> dict[str, float | None]:
    """Describe the weights that the examples had when they were last visited, those aside that are trusted."""
    seen = _weighed(samples, data)
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
        data: which of their labels are wrong, and which are trusted: these do not count.
    """
    seen = _weighed(samples, data).cpu().numpy()
    if data.corrupted is None or len(set(data.corrupted[seen])) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    values = weights.cpu().numpy()[seen]
    return float(roc_auc_score(data.corrupted[seen], -values)) if np.isfinite(values).all() else None


def _weighed(samples: SampleTable, data: PreparedData) -> Tensor:
    """Return which training examples have a weight that a plugin gave them, bool (N,)."""
    seen = samples.tensors["visits"] > 0
    return seen if data.trusted is None else seen & ~torch.from_numpy(data.trusted).to(seen.device)


def purity(sets: Mapping[str, Tensor], data: PreparedData) -> dict[str, float]:
    """Return the share of right labels in each set of training examples as ``NAME_purity``; of empty sets nothing.

    Args:
        sets: positions in the training set, int64 (k,), by the name of the set.
        data: which labels are wrong; where that is not known, there is no figure.
    """
    if data.corrupted is None:
        return {}
    corrupted = torch.from_numpy(data.corrupted).float()
    return {f"{name}_purity": 1 - corrupted[ids.cpu()].mean().item() for name, ids in sets.items() if len(ids)}


def summary_of(state: TrainingState) -> dict[str, Any]:
    """Return what summary.json holds, but for the figures of the network that the run ends with."""
    config, history, samples = state.parts.config, state.history, state.parts.step.samples
    last, best = history[-1], best_epoch(history, config.best_by) or {}
    tested = last["test_accuracy"] is not None
    return {
        "method": config.method,
        "data": config.data,
        "network": state.ends_with,
        "network_epoch": (best if state.ends_with == "best" else last)["epoch"],
        "epochs": state.epochs_done,
        "steps": state.steps_done,
        "stopped_early": state.stopped_early is not None,
        "stopped_epoch": state.stopped_early,
        "test_accuracy_mean5": fmean(metrics["test_accuracy"] for metrics in history[-5:]) if tested else None,
        "best_epoch": best.get("epoch"),
        **{f"best_{figure}": best.get(figure) for figure in OF_AN_EPOCH},
        **{
            figure: last[figure]
            for name in state.parts.hooks.networks
            for figure in (f"{name}_val_accuracy", f"{name}_test_accuracy")
        },
        "noise_auroc": noise_auroc(samples.mean("weight"), samples, state.parts.data),
        "seconds": state.seconds,
        "seconds_per_step": sum(metrics["seconds"] for metrics in history) / state.steps_done,
        "peak_memory_bytes": peak_memory(state.parts.device),
    }


def _mean(values: Tensor | None) -> float | None:
    return None if values is None or len(values) == 0 else values.mean().item()
