import pytest
import torch
import torch.nn.functional as F

from reweight_core.data.batch import Batch
from reweight_core.testing import tiny_parts, train_in
from reweight_core.testing.exact_run import CLASSES, ExactRun, make_context
from reweight_method_trusted.glc import corruption_matrix
from reweight_method_trusted.options import GLCConfig
from reweight_method_trusted.plugin import glc

FLIP = 0.6 * torch.eye(CLASSES, dtype=torch.float64) + 0.4 * torch.eye(CLASSES, dtype=torch.float64).roll(1, 1)


def make_method(C_hat=None):
    method = glc.build(GLCConfig(), make_context())
    if C_hat is not None:
        method.C_hat.copy_(C_hat)
    return method


def random_batch(trusted=None, n=12):
    """A batch of a stage on both, and its logits."""
    torch.manual_seed(0)
    labels = torch.arange(n) % CLASSES
    trusted = torch.zeros(n, dtype=torch.bool) if trusted is None else trusted
    batch = Batch(torch.arange(n), torch.zeros(n, 1, 1, 1), labels, source="both", trusted=trusted)
    return batch, 3 * torch.randn(n, CLASSES, dtype=torch.float64)


class TestCorruptionMatrix:
    def test_of_a_network_that_knows_the_noise_it_is_the_noise(self):
        labels = torch.arange(20) % CLASSES
        torch.testing.assert_close(corruption_matrix(FLIP[labels], labels), FLIP)

    def test_a_row_is_the_mean_prediction_on_a_class(self):
        torch.manual_seed(0)
        labels = torch.tensor([0, 1, 2, 3, 0, 0, 1])
        p = torch.rand(7, CLASSES, dtype=torch.float64).softmax(1)
        found = corruption_matrix(p, labels)
        torch.testing.assert_close(found[0], (p[0] + p[4] + p[5]) / 3)
        torch.testing.assert_close(found[1], (p[1] + p[6]) / 2)
        torch.testing.assert_close(found.sum(1), torch.ones(CLASSES, dtype=torch.float64))

    def test_a_class_without_trusted_examples_keeps_its_labels(self):
        p = torch.full((2, 3), 1 / 3)
        assert corruption_matrix(p, torch.tensor([0, 2]))[1].tolist() == [0, 1, 0]


class TestLosses:
    def test_without_corruption_it_is_the_cross_entropy(self):
        batch, logits = random_batch()
        expected = F.cross_entropy(logits, batch.labels, reduction="none")
        torch.testing.assert_close(make_method().losses(batch, logits), expected)

    def test_the_probability_of_the_observed_label_goes_through_the_matrix(self):
        batch, logits = random_batch()
        expected = -(logits.softmax(1) @ FLIP).gather(1, batch.labels[:, None]).squeeze(1).log()
        torch.testing.assert_close(make_method(FLIP).losses(batch, logits), expected)

    def test_trusted_examples_have_the_cross_entropy(self):
        batch, logits = random_batch(trusted=torch.arange(12) >= 9)
        losses = make_method(FLIP).losses(batch, logits)
        plain = F.cross_entropy(logits, batch.labels, reduction="none")
        torch.testing.assert_close(losses[9:], plain[9:])
        assert (losses[:9] - plain[:9]).abs().min() > 1e-3

    def test_its_gradient_is_the_prediction_less_the_posterior_of_the_true_class(self):
        batch, logits = random_batch()
        logits.requires_grad_()
        (rows,) = torch.autograd.grad(make_method(FLIP).losses(batch, logits).sum(), logits)
        p = logits.detach().softmax(1)
        joint = p * FLIP[:, batch.labels].T
        torch.testing.assert_close(rows, p - joint / joint.sum(1, keepdim=True))

    def test_labels_that_tell_nothing_have_no_gradient(self):
        batch, logits = random_batch()
        logits.requires_grad_()
        method = make_method(torch.full((CLASSES, CLASSES), 1 / CLASSES))
        (rows,) = torch.autograd.grad(method.losses(batch, logits).sum(), logits)
        assert rows.abs().max() < 1e-12

    def test_certain_predictions_and_empty_entries_are_finite(self):
        batch, logits = random_batch()
        logits = (100 * logits).float().requires_grad_()
        losses = make_method(FLIP.roll(2, 1)).losses(batch, logits)
        (rows,) = torch.autograd.grad(losses.sum(), logits)
        assert losses.isfinite().all() and rows.isfinite().all()


def test_what_is_recorded_is_the_posterior_of_the_observed_label():
    tested = ExactRun(make_method(FLIP))
    tested.take(range(10), 0.25)
    step = tested.watcher.steps[0]
    for i, y in enumerate(step.labels.tolist()):
        joint = step.probabilities[i] * FLIP[:, y]
        assert tested.step.samples.tensors["last_weight"][i].item() == pytest.approx((joint[y] / joint.sum()).item())


class TestRun:
    def test_the_first_network_is_one_of_plain_training_and_gives_the_matrix(self, tmp_path):
        plain = train_in(tmp_path / "plain", tiny_parts("erm", model="mlp", epochs=3)).model
        parts = tiny_parts("glc", model="mlp", epochs=1, first_epochs=3)
        train_in(tmp_path / "glc", parts)

        trusted = parts.meta
        p = plain(trusted.batch(torch.arange(len(trusted)), None).inputs).detach().softmax(1)
        expected = torch.stack([p[trusted.labels == label].mean(0) for label in range(4)])
        torch.testing.assert_close(parts.hooks.plugins["glc"].C_hat, expected)

    def test_the_second_network_begins_anew_and_sees_both_sets(self, tmp_path):
        # no step changes a parameter
        parts = tiny_parts("glc", model="mlp", epochs=3, first_epochs=1, lr=1e-30)
        start = [parameter.detach().clone() for parameter in parts.model.parameters()]
        run = train_in(tmp_path / "glc", parts)
        assert all(map(torch.equal, start, run.model.parameters()))
        estimate, correct = parts.stages
        assert (estimate.source, estimate.epochs, estimate.start) == ("train", 1, "continue")
        assert (correct.source, correct.epochs, correct.start) == ("both", 3, "initial")

    def test_the_first_network_has_a_quarter_of_the_runs_epochs(self):
        assert [stage.epochs for stage in tiny_parts("glc", model="mlp", epochs=8).stages] == [2, 8]
        # an epoch has five steps
        estimate, correct = tiny_parts("glc", model="mlp", steps=42).stages
        assert (estimate.steps, estimate.epochs, correct.steps) == (None, 2, 42)
