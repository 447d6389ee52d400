"""Runs to be compared: as one process, and as several that torch.distributed connects; a program that trains them."""

import multiprocessing
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from reweight_core.machine.together import ALONE, Together
from reweight_core.testing import tiny_parts
from reweight_core.training.build import begin
from reweight_core.training.loop import train_epoch
from reweight_core.training.state import TrainingState

BATCH, META_BATCH, EPOCHS = 12, 8, 5
PLAIN, NORMALISED = f"{__name__}:plain", f"{__name__}:normalised"

FSR = {"method": "fsr", "dictionary_size": 16, "probe_size": 8, "warmup_epochs": 1}
RUNS = {
    **{name: {"method": name} for name in ("erm", "l2rw", "random", "weighted", "clean-only", "mwnet", "gdw")},
    "gdw, another loss and components": {
        "method": "gdw",
        "loss": "gce",
        "meta_loss": "training",
        "with": ("relabel", "ema"),
        "relabel_warmup_epochs": 1,
    },
    "l2rw, mixup": {"method": "l2rw", "with": ("mixup", "label-smoothing")},
    "mwnet, double backward": {"method": "mwnet", "lookahead": "double"},
    "gdw, last layer": {"method": "gdw", "lookahead": "head"},
    "mwnet, lean": {"method": "mwnet", "memory": "lean", "max_grad_norm": 0.5},
    "mwnet, step of the optimizer": {"method": "mwnet", "virtual_step": "optimizer"},
    "fsr": FSR,
    "fsr, other options": {**FSR, "negative_weights": "shift", "pusher": "forgetting-events"},
    "fsr, given": {**FSR, "reward": "given"},
    **{
        name: {"method": name} for name in ("insw", "gen-label", "glc", "posterior-label", "co-teaching", "hard-mining")
    },
    "insw, softmax": {"method": "insw", "normalise": "softmax"},
    "soft-label": {"method": "soft-label", "soft_labels": "rows"},
    "crust": {"method": "crust", "warmup_epochs": 1},
    **{name: {"method": name} for name in ("self-paced", "mentor", "pencil")},
    **{
        name: {"loss": name}
        for name in ("sce", "bootstrap", "elr", "forward", "s-model", "focal", "sigmoid-focal", "balanced-softmax")
    },
    "backward": {"loss": "backward", "lr": 1e-3},
    "logit-adjusted": {"loss": "logit-adjusted"},
    "class-balanced": {"loss": "class-balanced", "class_balanced_normalise": "weights"},
    "ldam": {"loss": "ldam", "head": "cosine", "ldam_reweight_from": 2, "lr": 0.01},
    "gce, truncated": {"loss": "gce", "gce_truncate": 0.5, "gce_truncate_from": 1},
    "resample": {"with": ("resample",)},
    "fine-tune": {"with": ("fine-tune",)},
}
"""Options of runs on `plain`, by a name for each; every method, loss and component is in one of them."""

FEW = ("l2rw", "elr")
"""Those that are trained in four processes too, which shows that there is nothing special about two."""

SYNCHRONISED = {
    "erm": {},
    "l2rw": {"method": "l2rw"},
    "gdw": {"method": "gdw"},
    "mwnet, double backward": {"method": "mwnet", "lookahead": "double"},
    "fsr": FSR,
}
"""Likewise on `normalised`, with ``--sync-batchnorm`` and without."""


def plain(input_shape, num_classes):
    """A small network without BatchNorm, which draws."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.Tanh(),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(4 * height * width, 12),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.Linear(12, num_classes),
    )


def normalised(input_shape, num_classes, norm=nn.BatchNorm2d):
    """A small network with BatchNorm."""
    channels = input_shape[0]
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        norm(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        norm(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, num_classes),
    )


class MicroBatchNorm(nn.BatchNorm2d):
    """BatchNorm of one process that takes its batch in two parts: each normalised by itself, every other example."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        parts = [x[0::2], x[1::2]]
        variances, means = zip(*(torch.var_mean(part.detach(), (0, 2, 3)) for part in parts), strict=True)
        self.running_mean.lerp_(torch.stack(means).mean(0), self.momentum)
        self.running_var.lerp_(torch.stack(variances).mean(0), self.momentum)
        self.num_batches_tracked.add_(1)
        done = [F.batch_norm(part, None, None, self.weight, self.bias, True, 0, self.eps) for part in parts]
        order = torch.cat([torch.arange(len(x))[0::2], torch.arange(len(x))[1::2]]).argsort()
        return torch.cat(done)[order]


def in_micro_batches(input_shape, num_classes):
    """`normalised` with `MicroBatchNorm`."""
    return normalised(input_shape, num_classes, MicroBatchNorm)


def trained(model, options, together=ALONE):
    """Train a tiny run of about 20 steps, as one of its processes; return its state and metrics."""
    options = {"method": "erm", "lr": 0.05, **options}
    parts = tiny_parts(
        model=model, epochs=EPOCHS, batch_size=BATCH, meta_batch_size=META_BATCH, together=together, **options
    )
    state = TrainingState(parts)
    begin(parts)
    while not state.is_over:
        if state.stage_is_over:
            state.begin_next_stage()
        metrics = train_epoch(state, state.next_epoch())
        metrics |= parts.hooks.finish_epoch(state.epochs_done, parts.step.samples.tensors)
        state.history.append({**metrics, "val_accuracy": None, "val_balanced_accuracy": None})
    return state.state_dict(), state.history


def main(rank, size, folder):
    """Train every run as one of several processes; process 0 saves what became of them."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    found = {}
    for name, options in RUNS.items():
        if size == 2 or name in FEW:
            found[name] = trained(PLAIN, options, Together(rank, size))
    for name, options in SYNCHRONISED.items():
        if size == 2 or name in FEW:
            found[f"synchronised {name}"] = trained(NORMALISED, options, Together(rank, size, sync_batchnorm=True))
        if size == 2:
            found[f"by process {name}"] = trained(NORMALISED, options, Together(rank, size))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # as a module of this name, in which the networks are found
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import runs_in_processes

    torch.set_num_threads(1)
    size = int(sys.argv[1])
    # forked, because importing torch takes longer than the runs
    forked = [
        multiprocessing.get_context("fork").Process(target=runs_in_processes.main, args=(rank, size, sys.argv[2]))
        for rank in range(size)
    ]
    for process in forked:
        process.start()
    for process in forked:
        process.join()
    sys.exit(any(process.exitcode for process in forked))
