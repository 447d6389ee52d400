import json

import pytest
import torch
import torch.nn.functional as F

from reweight_core.testing import tiny_parts, train_in


def trained(folder, method="erm", **options):
    """Train with fine-tuning; return the parts and the lines of metrics."""
    parts = tiny_parts(method, **{"model": "mlp", "epochs": 2, "with": ("fine-tune",), **options})
    train_in(folder, parts)
    return parts, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_a_sixteenth_of_the_run_at_a_tenth_of_its_rate():
    # an epoch has five steps
    parts = tiny_parts("erm", **{"model": "mlp", "epochs": 32, "lr": 0.5, "with": ("fine-tune",)})
    *_, last = parts.stages
    assert (last.source, last.steps, last.lr) == ("meta", 10, pytest.approx(0.05))


def test_length_and_rate_can_be_given(tmp_path):
    _, lines = trained(tmp_path / "run", fine_tune_steps=7, fine_tune_lr=0.03, lr=0.5)
    assert [line["step"] for line in lines] == [5, 10, 15, 17]
    # constant, unlike the cosine before
    assert [line["lr"] for line in lines[2:]] == [0.03, 0.03]
    assert [line["stage"] for line in lines] == ["train", "train", "fine-tune", "fine-tune"]


@pytest.mark.parametrize("method", ["insw", "soft-label"])
def test_the_method_is_not_called(method, tmp_path):
    tuned, lines = trained(tmp_path / "tuned", method, fine_tune_steps=6)
    alone = tiny_parts(method, model="mlp", epochs=2)
    train_in(tmp_path / "alone", alone)
    assert [line["meta_loss"] is None for line in lines] == [False, False, True, True]
    # what it keeps of each example is as it was
    (found,), (expected,) = (parts.hooks.plugins[method].state_dict().values() for parts in (tuned, alone))
    assert torch.equal(found, expected)


def test_with_a_rate_of_0_the_network_stays(tmp_path):
    tuned, _ = trained(tmp_path / "tuned", fine_tune_lr=0.0, fine_tune_steps=3)
    alone = tiny_parts("erm", model="mlp", epochs=2)
    train_in(tmp_path / "alone", alone)
    assert all(map(torch.equal, tuned.model.parameters(), alone.model.parameters()))


def test_it_trains_on_the_trusted_examples_alone(tmp_path):
    options = {"batch_size": 8, "momentum": 0.0, "augment": "none"}
    tuned, _ = trained(tmp_path / "run", fine_tune_lr=0.25, fine_tune_steps=1, **options)
    alone = tiny_parts("erm", model="mlp", epochs=2, **options)
    train_in(tmp_path / "alone", alone)

    # the one step takes all trusted examples
    assert len(alone.meta) == 8
    trusted = alone.meta.batch(torch.arange(len(alone.meta)), None)
    before = list(alone.model.train().parameters())
    gradients = torch.autograd.grad(F.cross_entropy(alone.model(trusted.inputs), trusted.labels), before)
    decay = alone.config.weight_decay
    for found, p, gradient in zip(tuned.model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(found, p - 0.25 * (gradient + decay * p), rtol=1e-4, atol=1e-6)
