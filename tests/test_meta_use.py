"""``--meta-use both`` with every method: trusted examples are trained on as in plain training."""

import pytest
import torch
from safetensors.torch import load_file

from reweight_core import UserError, configure, evaluate, train
from reweight_core.engine.training_step import TrainingStep
from reweight_core.plugins import registry
from reweight_core.runs.folder import read_config
from reweight_core.testing import tiny_parts, train_in
from reweight_core.testing.method_suite import assert_replays_like_eager

N, HALF, WHOLE = 44, 4, 8
"""Training examples of the tiny dataset, and the trusted ones that are trained on beside."""

# these train on the clean examples anyway
REFUSED = {"clean-only", "glc", "posterior-label"}

DICTIONARY = {"fsr"}
"""Methods that look ahead at training examples."""

DIVIDED, CLASSES = {"gen-label", "pencil"}, 4
"""Methods whose losses are divided by the number of classes from the second epoch on."""

OPTIONS = {
    "crust": {"warmup_epochs": 1, "mix": False},
    "fsr": {"dictionary_size": 8, "probe_size": 4, "warmup_epochs": 0},
    "pencil": {"correct_from": 1, "correct_until": 2},
    "weighted": {"rate": 0.4},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", sorted(set(registry.names("method")) - REFUSED))
def test_trusted_rows_are_those_of_plain_training(method, tmp_path, monkeypatch):
    noted, note = [], TrainingStep.note

    def noting(self, step, own):
        # beside losses that are divided by the number of classes
        scale = 1 / CLASSES if method in DIVIDED and step.epoch >= 1 else 1
        noted.append((step.ids.clone(), step.weights, step.D_prime, scale * (step.probabilities - step.one_hot)))
        note(self, step, own)

    monkeypatch.setattr(TrainingStep, "note", noting)
    parts = tiny_parts(method, model="mlp", epochs=3, lr=0.01, meta_use="both", **OPTIONS.get(method, {}))
    record = registry.find("method", method)
    looks_ahead = record.looks_ahead != "no" and method not in DICTIONARY
    trained = HALF if record.needs_meta_set or looks_ahead else WHOLE
    assert len(parts.train) == N + trained
    train_in(tmp_path / "run", parts)
    seen = 0
    for ids, weights, D_prime, plain in noted:
        trusted = ids >= N
        torch.testing.assert_close(D_prime[trusted], plain[trusted] / len(ids))
        assert (weights[trusted] == 1).all()
        seen += trusted.sum().item()
    # a coreset may leave some of them out
    assert seen == 3 * trained or method == "crust"
    samples = load_file(tmp_path / "run" / "samples.safetensors")
    assert (samples["last_weight"][N:][samples["visits"][N:] > 0] == 1).all()


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_methods_that_train_on_them_themselves_are_refused(method):
    with pytest.raises(UserError, match=r"--meta-use both: stage .* trains on the clean examples itself"):
        tiny_parts(method, model="mlp", meta_use="both")


def test_fsr_keeps_a_half_where_its_probe_batches_come_from_the_clean_examples():
    parts = tiny_parts("fsr", model="mlp", meta_use="both", reward="given", probe_size=4)
    assert (len(parts.train), len(parts.data.meta)) == (N + HALF, HALF)


@pytest.mark.parametrize("method", ["gdw", "insw", "soft-label", "co-teaching"])
def test_a_recorded_step_treats_them_alike(method):
    assert_replays_like_eager(lambda: tiny_parts(method, model="mlp", meta_use="both"))


def test_the_program_trains_on_half_of_the_trusted_examples_and_knows_the_run_again(tmp_path):
    given = {"data": "digits", "noise": "uniform:0.4", "meta_size": 100, "val_fold": "1/5", "epochs": 1}
    run = train(configure(method="gdw", model="mlp", meta_use="both", device="cpu", out=tmp_path / "run", **given))
    samples = load_file(run.folder / "samples.safetensors")
    assert samples["trusted"].sum() == 40
    assert torch.equal(samples["true"][samples["trusted"]], samples["observed"][samples["trusted"]])
    # the test images of digits are a split of their own, so ids are those of the training set alone
    assert samples["id"].unique().numel() == len(samples["id"])
    assert read_config(run.folder).config.meta_use == "both"
    # the fold is found again, so the data are those of the run
    assert evaluate(run.folder)["val_accuracy"] == run.summary["val_accuracy"]
