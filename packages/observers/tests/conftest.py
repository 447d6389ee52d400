"""A run that observers hear of, told by hand: no training."""

import json
from types import SimpleNamespace

import numpy as np
import pytest


def metrics_of(epoch, **more):
    """Return the figures of an epoch, as a run has them."""
    return {
        "stage": "train",
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": 1 / epoch,
        "meta_loss": None,
        "noise_auroc": 0.5 + 0.1 * epoch,
        **more,
    }


def samples_of(epoch):
    """Return six examples: one was never seen, one is trusted, two are wrong; weights change from epoch to epoch."""
    return {
        "last_weight": np.array([0.1, 0.2, 0.3, np.nan, 9.0, 9.0], np.float32) * epoch,
        "visits": np.array([1, 1, 1, 1, 0, 1]),
        "true": np.array([0, 0, 1, 1, 0, 0]),
        "observed": np.array([0, 1, 1, 1, 0, 0]),
        "trusted": np.array([False, False, False, False, False, True]),
    }


@pytest.fixture
def run(tmp_path):
    """Let an observer hear of epochs, as core does; `begin` and `end` as in a run."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    file = folder / "metrics.jsonl"

    def tell(observer, epochs, after=0, error=None, killed=False, **more):
        """Begin after so many epochs, as a resumed run does, and train these; `more` are figures by epoch."""
        kept = file.read_text().splitlines(keepends=True)[:after] if after else []
        file.write_text("".join(kept))
        config = {"method": "erm", "epochs": 5}
        hooks = {
            "begin_run": {"folder": folder, "config": config, "epochs_done": after},
            "end_run": {"error": error},
        }

        def call(hook, **arguments):
            function = getattr(observer, hook, None)
            if function is not None:
                wanted = function.__code__.co_varnames[1 : function.__code__.co_argcount]
                function(**{name: arguments[name] for name in wanted})

        call("begin_run", **hooks["begin_run"])
        for epoch in epochs:
            metrics = metrics_of(epoch, **more.get(f"epoch_{epoch}", {}))
            with open(file, "a") as lines:
                lines.write(json.dumps(metrics) + "\n")
            call("observe_epoch", metrics=metrics, samples=samples_of(epoch))
        if not killed:
            call("end_run", **hooks["end_run"])

    return SimpleNamespace(folder=folder, tell=tell)
