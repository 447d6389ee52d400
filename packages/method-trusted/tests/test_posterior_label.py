import json

import pytest
import torch
import torch.nn.functional as F

from reweight_core.testing import tiny_parts, train_in
from reweight_method_trusted.posterior_label import PRIOR_COUNT, posterior

T = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.7, 0.3], [0.2, 0.2, 0.6]], dtype=torch.float64)
C = len(T)


def world(size=20_000, sharpness=2.0, seed=0):
    """Draw true and observed labels, and logits that say what is known of the true ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(size, C, generator=generator, dtype=torch.float64)
    true = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return logits, true, torch.multinomial(T[true], 1, generator=generator).squeeze(1)


class TestPosterior:
    def test_the_noise_is_found_and_bayes_rule_applied(self):
        logits, _, observed = world()
        r, found = posterior(logits, observed)
        torch.testing.assert_close(found, T, rtol=0, atol=0.03)
        joint = logits.softmax(1) * T[:, observed].T
        assert (r - joint / joint.sum(1, keepdim=True)).abs().mean() < 0.01

    def test_overconfident_predictions_are_tempered_by_what_the_observed_labels_say(self):
        logits, true, observed = world()
        r, found = posterior(4 * logits, observed)
        torch.testing.assert_close(found, T, rtol=0, atol=0.03)
        assert F.nll_loss(r.log(), true) < F.cross_entropy(4 * logits, true) / 2

    def test_it_says_more_than_predictions_and_labels_do(self):
        logits, true, observed = world()
        r, _ = posterior(logits, observed)
        right = [(guess == true).double().mean() for guess in (r.argmax(1), logits.argmax(1), observed)]
        assert right[0] > max(right[1:]) + 0.03

    def test_a_round_of_em_does_not_change_what_it_ends_with(self):
        logits, _, observed = world(sharpness=8.0)
        r, found = posterior(logits, observed)
        counts = torch.zeros(C, C, dtype=torch.float64) + PRIOR_COUNT / C
        for row, label in zip(r, observed.tolist(), strict=True):
            counts[:, label] += row
        torch.testing.assert_close(counts / counts.sum(1, keepdim=True), found, rtol=0, atol=1e-3)

    def test_a_class_that_is_never_predicted_and_one_that_is_never_observed_leave_it_finite(self):
        logits = torch.tensor([[50.0, 0.0, -900.0]] * 6)
        r, found = posterior(logits, torch.tensor([0, 0, 0, 0, 1, 1]))
        assert r.isfinite().all() and found.isfinite().all()
        torch.testing.assert_close(r.sum(1), torch.ones(6, dtype=torch.float64))


class TestRun:
    def test_the_first_network_corrects_the_labels_when_its_stage_is_over(self, tmp_path):
        parts = tiny_parts("posterior-label", model="mlp", epochs=1, first_epochs=3)
        train, method, asked = parts.train, parts.hooks.plugins["posterior-label"], []
        predict = method.predict
        method.predict = lambda examples: asked.append((examples, predict(examples))) or asked[-1][1]
        train_in(tmp_path / "run", parts)

        ((examples, outputs),) = asked
        assert examples is train
        expected, _ = posterior(outputs.logits, train.labels)
        torch.testing.assert_close(method.targets[: len(train)], expected.to(method.targets.dtype))
        assert torch.equal(method.targets[len(train) :], F.one_hot(parts.meta.labels, 4).to(method.targets.dtype))

    def test_the_second_network_begins_anew_on_both_sets_and_is_compared_with_the_corrected_labels(self, tmp_path):
        parts = tiny_parts("posterior-label", model="mlp", epochs=2, first_epochs=1)
        first, second = parts.stages
        assert (first.source, first.epochs) == ("meta", 1)
        assert (second.source, second.epochs, second.start) == ("both", 2, "initial")
        run = train_in(tmp_path / "run", parts)

        method = parts.hooks.plugins["posterior-label"]
        labels = parts.train.labels
        recorded = parts.step.samples.tensors["last_weight"]
        expected = method.targets[: len(labels)].gather(1, labels[:, None]).squeeze(1)
        torch.testing.assert_close(recorded, expected.to(recorded.dtype))
        estimate = 1 - expected.mean().item()
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["wrong_labels_estimate"] for line in lines] == [pytest.approx(estimate)] * 3
        assert 0 < estimate < 1
