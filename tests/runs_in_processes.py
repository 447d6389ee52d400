"""Runs to be compared, of one process and of several; a program that trains a few in processes connected by gloo."""

import multiprocessing
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from reweight_core import configure
from reweight_core.machine.together import ALONE, Together
from reweight_core.testing import tiny_parts
from reweight_core.training.build import begin
from reweight_core.training.loop import train, train_epoch
from reweight_core.training.state import TrainingState

BATCH, META_BATCH = 12, 8
PLAIN, NORMALISED = f"{__name__}:plain", f"{__name__}:normalised"
BY_PROCESS = {2: f"{__name__}:in_two_parts", 4: f"{__name__}:in_four_parts"}

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
    **{name: {"method": name} for name in ("insw", "gen-label", "co-teaching", "hard-mining")},
    # of both sets together, four processes would leave out what is left of batches of twelve
    **{name: {"method": name, "batch_size": 11} for name in ("glc", "posterior-label")},
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

CONNECTED = ("l2rw, mixup", "gdw, another loss and components", "fsr", "co-teaching", "elr")
"""Those whose processes are connected by gloo in the tests; together they exchange everything that can be."""

DIGITS = {
    "method": "l2rw",
    "data": "digits",
    "model": "mlp",
    "meta_size": 100,
    "lookahead": "jvp",
    "epochs": 3,
    "checkpoint_every": "1epochs",
}
"""Options of a run of the program, of 14 steps an epoch."""

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
    """BatchNorm of one process that takes its batch in parts, each normalised by itself: every `parts`-th example."""

    parts = 2

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        # of the two examples that a run is tried with, no parts can be made
        count = min(self.parts, len(x) // 2)
        parts = [x[part::count] for part in range(count)]
        variances, means = zip(*(torch.var_mean(part.detach(), (0, 2, 3)) for part in parts), strict=True)
        self.running_mean.lerp_(torch.stack(means).mean(0), self.momentum)
        self.running_var.lerp_(torch.stack(variances).mean(0), self.momentum)
        self.num_batches_tracked.add_(1)
        done = [F.batch_norm(part, None, None, self.weight, self.bias, True, 0, self.eps) for part in parts]
        order = torch.cat([torch.arange(len(x))[part::count] for part in range(count)]).argsort()
        return torch.cat(done)[order]


class FourPartsNorm(MicroBatchNorm):
    """Likewise in four parts."""

    parts = 4


def in_two_parts(input_shape, num_classes):
    """`normalised` with `MicroBatchNorm`."""
    return normalised(input_shape, num_classes, MicroBatchNorm)


def in_four_parts(input_shape, num_classes):
    """`normalised` with `FourPartsNorm`."""
    return normalised(input_shape, num_classes, FourPartsNorm)


def trained(model, options, together=ALONE, epochs=3):
    """Train a tiny run of four steps an epoch, as one of its processes; return its state and metrics."""
    options = {"method": "erm", "lr": 0.05, "batch_size": BATCH, "meta_batch_size": META_BATCH, **options}
    parts = tiny_parts(model=model, epochs=epochs, together=together, **options)
    state = TrainingState(parts)
    begin(parts)
    while not state.is_over:
        if state.stage_is_over:
            state.begin_next_stage()
        metrics = train_epoch(state, state.next_epoch())
        metrics |= parts.hooks.finish_epoch(state.epochs_done, parts.step.samples.tensors)
        state.history.append({**metrics, "val_accuracy": None, "val_balanced_accuracy": None})
    return state.state_dict(), state.history


def difference(state, expected):
    """Return the largest difference of tensors by name, as a share of the tensor's largest entry or of 1, if more."""
    assert state.keys() == expected.keys()
    worst = 0.0
    for name, tensor in expected.items():
        if tensor.numel():
            torch.testing.assert_close(state[name].isnan(), tensor.isnan(), msg=name)
            apart = (state[name].double() - tensor.double()).nan_to_num().abs().max().item()
            worst = max(worst, apart / max(1.0, tensor.double().nan_to_num().abs().max().item()))
    return worst


def joined(rank, size, folder):
    """Connect a process to the others by gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-{size}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=300),
    )


def main(rank, size, folder):
    """Train a few runs as one of several processes, and save them; two also train a run of the program."""
    joined(rank, size, folder)
    torch.set_default_dtype(torch.float64)
    plain, synchronised = (CONNECTED, SYNCHRONISED) if size == 2 else (CONNECTED[-1:], ("l2rw",))
    found = {name: trained(PLAIN, RUNS[name], Together(rank, size)) for name in plain}
    for name in synchronised:
        together = Together(rank, size, sync_batchnorm=True)
        found[f"synchronised {name}"] = trained(NORMALISED, SYNCHRONISED[name], together)
    if size == 2:
        for name in ("l2rw", "gdw"):
            found[f"by process {name}"] = trained(NORMALISED, SYNCHRONISED[name], Together(rank, size))
    torch.save(found, Path(folder) / f"{rank}-of-{size}.pt")
    torch.set_default_dtype(torch.float32)
    if size == 2:
        train(configure(**DIGITS, processes=size, out=Path(folder) / "whole"))
    dist.destroy_process_group()


def fork(work, size, folder):
    """Run `work` in processes; return how many failed. They are forked: importing torch takes longer than the runs."""
    forked = [
        multiprocessing.get_context("fork").Process(target=work, args=(rank, size, folder)) for rank in range(size)
    ]
    for process in forked:
        process.start()
    for process in forked:
        process.join()
    return sum(process.exitcode != 0 for process in forked)


if __name__ == "__main__":
    # as a module of this name, in which the networks are found
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import runs_in_processes

    sys.exit(sum(fork(runs_in_processes.main, size, sys.argv[1]) for size in (2, 4)))
