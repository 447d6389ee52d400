"""What cheaper look-aheads do to the weights of a batch, after some epochs of training on digits.

python benchmarks/shortcut_effect.py
"""

import statistics
import tempfile
from pathlib import Path

import attrs
import click
import torch
from torch import Tensor

from reweight_core import configure
from reweight_core.config.load_data import load_data
from reweight_core.data.feeder import Fed
from reweight_core.data.seeds import cycled_order, epoch_order
from reweight_core.training.auto import relative_error, tried
from reweight_core.training.build import Parts, build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_parts

LR, META = 0.05, 100

SHORTCUTS = {
    "`--lookahead head`": {"lookahead": "head"},
    "`--virtual-step off`": {"virtual_step": "off"},
    "`--meta-batch-size 50`": {"meta_batch_size": 50},
    "`--meta-batch-size 25`": {"meta_batch_size": 25},
    "another meta batch of 100": {"other": True},
    "`--meta-every K`, a step without a look-ahead": {"looks_ahead": False},
}


def weights(parts: Parts, batch: int, other: bool = False, looks_ahead: bool = True) -> Tensor:
    """Return the weights of one training batch, with the first of 100 meta examples or with 100 others."""
    n, m = parts.config.batch_size, parts.config.meta_batch_size
    ids = epoch_order(0, 1, len(parts.data.train))[batch * n : (batch + 1) * n]
    meta_ids = cycled_order(0, 1, len(parts.meta), 2 * META)[META * other :][:m]
    parts.step.feed(Fed(torch.from_numpy(ids), torch.from_numpy(meta_ids)))
    if not looks_ahead:
        return parts.hooks.generate_weights(parts.step.open(n, looks_ahead=False))
    return tried(parts.step, n, parts.step.lookahead).weights


@click.command()
@click.option("--epochs", default=5, help="Epochs of training before the weights are compared.")
@click.option("--batches", default=10, help="Batches to compare on; the median is shown.")
def main(epochs: int, batches: int) -> None:
    """Print a Markdown table of relative error and cosine against the full look-ahead."""
    print(f"| {'shortcut':<46} | l2rw | mwnet | gdw |\n| --- | --- | --- | --- |")
    cells: dict[str, list[str]] = {name: [] for name in SHORTCUTS}
    for method in ("l2rw", "mwnet", "gdw"):
        config = configure(
            data="digits",
            noise="uniform:0.4",
            meta_size=4 * META,
            method=method,
            epochs=epochs,
            lr=LR,
            lookahead="jvp",
            device="cpu",
        )
        data = load_data(config)
        trained = build_parts(config, data)
        with tempfile.TemporaryDirectory() as folder:
            train_parts(trained, HeldOut.of(config, data, trained.device), Path(folder))
        for name, change in SHORTCUTS.items():
            options = {key: value for key, value in change.items() if key not in ("other", "looks_ahead")}
            call = {key: value for key, value in change.items() if key not in options}
            if method == "l2rw" and "looks_ahead" in call:
                cells[name].append("refused")
                continue
            compared = [build_parts(attrs.evolve(config, **changed), data) for changed in ({}, options)]
            found = []
            for batch in range(batches):
                pair = []
                for parts, arguments in zip(compared, ({}, call), strict=True):
                    parts.model.load_state_dict(trained.model.state_dict())
                    parts.model.train()
                    parts.hooks.load_state_dict(trained.hooks.state_dict())
                    parts.step.lr.fill_(LR)
                    pair.append(weights(parts, batch, **arguments))
                cosine = torch.cosine_similarity(pair[1].flatten(), pair[0].flatten(), dim=0).item()
                found.append((relative_error(pair[1], pair[0]), cosine))
            error, cosine = (statistics.median(values) for values in zip(*found, strict=True))
            cells[name].append(f"{100 * error:.1f} %, {cosine:.3f}")
    for name, row in cells.items():
        print(f"| {name:<46} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
