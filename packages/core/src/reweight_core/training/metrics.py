"""The figures of a run: what is written after every epoch, and at the end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reweight_core.data.prepare import PreparedData
from reweight_core.engine.sample_table import SampleTable
from reweight_core.engine.training_step import EpochSums
from reweight_core.machine.meters import peak_memory
from reweight_core.runs.checkpoint import best_epoch
from reweight_core.training.held_out import OF_AN_EPOCH
from reweight_core.training.state import TrainingState


def means(sums: EpochSums) -> dict[str, float | None]:
    """Return the means of an epoch: losses, and examples that a step rests on.

    This waits until the device has finished its steps.
    """
    return {
        "train_loss": (sums.train_loss / sums.examples).item(),
        "meta_loss": (sums.meta_loss / sums.meta_steps).item() if sums.meta_steps.item() else None,
        "effective_examples": (sums.effective_examples / sums.steps).item(),
    }


FEW_EPOCHS, FEW_SHARE = 3, 0.1
"""So many epochs in a row, with steps that rest on less than this share of a batch, give a warning."""


def warn_of_few_examples(history: Sequence[Mapping[str, Any]], batch_size: int) -> None:
    """Warn when steps have come to rest on few of their examples, once in a run.

    Args:
        history: the metrics of all epochs so far.
        batch_size: examples in a batch.
    """
    carried = [metrics["effective_examples"] for metrics in history]
    # None where a weight was not finite, for which a run stops with its own reason
    few = [number is not None and number < FEW_SHARE * batch_size for number in carried]
    found = [end for end in range(FEW_EPOCHS, len(few) + 1) if all(few[end - FEW_EPOCHS : end])]
    if found == [len(few)]:
        rests = f"{history[-1]['effective_examples']:.1f} of {batch_size} examples"
        warnings.warn(
            f"the steps of {FEW_EPOCHS} epochs in a row rest on {rests} (effective_examples in metrics.jsonl): they "
            "are as noisy as steps of so small a batch, and training may collapse; give a lower --lr or a larger "
            "--batch-size, or bound the weights if the method has an option for it",
            stacklevel=2,
        )


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
        "noise_auroc": noise_auroc(samples.mean_weight(), samples, state.parts.data),
        "seconds": state.seconds,
        "seconds_per_step": sum(metrics["seconds"] for metrics in history) / state.steps_done,
        "peak_memory_bytes": peak_memory(state.parts.device),
    }


def _mean(values: Tensor | None) -> float | None:
    return None if values is None or len(values) == 0 else values.mean().item()
