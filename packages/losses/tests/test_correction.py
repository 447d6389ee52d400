import json
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reweight_core import Batch, Stage, UserError, registry
from reweight_core.engine.network import ParameterOptimizer
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_losses import correction
from reweight_losses.correction import Backward, Estimate, Forward
from reweight_losses.options import CorrectionConfig, SModelConfig
from reweight_losses.s_model import SModel
from reweight_losses.transition import estimate_matrix, matrix_of_noise, read_matrix

C = 3
T = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def context(dtype=torch.float64, **changes):
    labels = torch.arange(30) % C
    known = {
        "num_classes": C,
        "train": SimpleNamespace(labels=labels),
        "device": torch.device("cpu"),
        "dtype": dtype,
        "epochs": 10,
        "together": SimpleNamespace(total=lambda part: part),
        "by_example": lambda tensor: tensor,
    }
    return SimpleNamespace(**known | changes)


@pytest.fixture
def batch():
    return Batch(torch.arange(9), torch.zeros(9, 1, dtype=torch.float64), torch.arange(9) % C)


@pytest.fixture
def logits():
    return 2 * torch.randn(9, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def rows_of(loss, batch, logits):
    logits = logits.clone().requires_grad_()
    (rows,) = torch.autograd.grad(loss.losses(batch, logits).sum(), logits)
    return rows


def assert_cross_entropy(loss, batch, logits):
    """Bit for bit, values and gradients."""
    logits = logits.float()
    reference = SimpleNamespace(losses=lambda batch, at: F.cross_entropy(at, batch.labels, reduction="none"))
    assert torch.equal(loss.losses(batch, logits), reference.losses(batch, logits))
    assert torch.equal(rows_of(loss, batch, logits), rows_of(reference, batch, logits))


class TestForward:
    def test_value_and_row(self, batch, logits):
        loss = Forward(T, context())
        p = logits.softmax(1)
        joint = p * T.T[batch.labels]

        torch.testing.assert_close(loss.losses(batch, logits), -joint.sum(1).log(), **EXACT)
        torch.testing.assert_close(rows_of(loss, batch, logits), p - joint / joint.sum(1, keepdim=True), **EXACT)

    def test_a_label_that_says_nothing_has_no_gradient(self, batch, logits):
        loss = Forward(torch.full((C, C), 1 / C, dtype=torch.float64), context())

        assert rows_of(loss, batch, logits).abs().max() < 1e-15

    def test_without_noise_it_is_cross_entropy(self, batch, logits):
        assert_cross_entropy(Forward(torch.eye(C), context(torch.float32)), batch, logits)


class TestBackward:
    def test_expected_over_the_noise_it_is_the_loss_of_the_true_label(self, logits):
        loss = Backward(T, context())
        for true in range(C):
            expected, expected_rows = 0, 0
            for observed in range(C):
                labels = torch.full((9,), observed)
                noisy = Batch(torch.arange(9), torch.zeros(9, 1), labels)
                expected = expected + T[true, observed] * loss.losses(noisy, logits)
                expected_rows = expected_rows + T[true, observed] * rows_of(loss, noisy, logits)
            labels = torch.full((9,), true)
            torch.testing.assert_close(expected, F.cross_entropy(logits, labels, reduction="none"), **EXACT)
            torch.testing.assert_close(expected_rows, logits.softmax(1) - F.one_hot(labels, C), **EXACT)

    def test_without_noise_it_is_cross_entropy(self, batch, logits):
        assert_cross_entropy(Backward(torch.eye(C), context(torch.float32)), batch, logits)

    def test_a_given_matrix_without_inverse_is_refused(self, tmp_path):
        path = tmp_path / "T.csv"
        path.write_text(f"{' '.join([str(1 / C)] * C)}\n" * C)
        with pytest.raises(UserError, match="--backward: the transition matrix has no inverse"):
            correction.backward(CorrectionConfig(matrix=path), context())

    def test_trusted_examples_have_cross_entropy(self, batch, logits):
        for loss in (Backward(T, context()), Forward(T, context())):
            plain = F.cross_entropy(logits, batch.labels, reduction="none")
            corrected = loss.losses(batch, logits)
            trusted = torch.arange(len(logits)) % 2 == 0
            for source in ("both", "train"):
                mixed = loss.losses(attrs.evolve(batch, source=source, trusted=trusted), logits)
                assert torch.equal(mixed, torch.where(trusted, plain, corrected))
            assert torch.equal(loss.losses(attrs.evolve(batch, source="meta"), logits), plain)


class TestGivenMatrix:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("T.json", json.dumps(T.tolist())),
            ("T.csv", "0.7,0.2,0.1\n0,0.9,0.1\n0.3,0.3,0.4\n"),
            ("T.txt", "0.7 0.2 0.1\n\n0 0.9 0.1\n0.3 0.3 0.4"),
        ],
    )
    def test_files(self, tmp_path, name, text):
        path = tmp_path / name
        path.write_text(text)

        assert torch.equal(read_matrix(path, C, "--forward-matrix"), T)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("T.csv", "1,0\n0,1\n", r"shape \(2, 2\), but the data have 3 classes"),
            ("T.csv", "1,0,0\n0,1,0\n0,0.5,0.4\n", "row 3 must be a distribution"),
            ("T.csv", "1,0,0\n0,2,-1\n0,0.5,0.5\n", "row 2 must be a distribution"),
            ("T.csv", "1,0,0\n0,1\n0,0,1\n", "a row of numbers for each class"),
            ("T.csv", "a,b,c\n", "a row of numbers for each class"),
            ("T.json", "{", "a row of numbers for each class"),
            ("T.json", '{"a": 1}', "a row of numbers for each class"),
            ("T.json", "[[NaN, 0, 1], [0, 1, 0], [0, 0, 1]]", "row 1 must be a distribution"),
        ],
    )
    def test_what_is_no_matrix_is_refused_by_its_flag(self, tmp_path, name, text, message):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(UserError, match=message) as error:
            correction.forward(CorrectionConfig(matrix=path), context())
        assert str(error.value).startswith(f"--forward-matrix {path}: ")

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="No such file"):
            correction.backward(CorrectionConfig(matrix=tmp_path / "none.csv"), context())

    def test_two_matrices_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="--backward-matrix and --backward-noise exclude each other"):
            correction.backward(CorrectionConfig(matrix=tmp_path / "T.csv", noise="uniform:0.4"), context())

    def test_labels_that_it_makes_impossible_are_refused(self, tmp_path):
        path = tmp_path / "T.csv"
        path.write_text("1,0,0\n1,0,0\n0,0,1\n")
        with pytest.raises(UserError, match="ever observed as class 1"):
            correction.forward(CorrectionConfig(matrix=path), context())

    def test_a_given_matrix_takes_one_stage(self, tmp_path):
        path = tmp_path / "T.json"
        path.write_text(json.dumps(T.tolist()))

        assert type(correction.forward(CorrectionConfig(matrix=path), context())) is Forward
        assert type(correction.backward(CorrectionConfig(matrix=path), context())) is Backward


class TestMatrixOfNoise:
    @pytest.fixture
    def kinds(self, monkeypatch):
        def next_class(argument):
            return lambda labels, classes, rng: (labels + (rng.random_sample(len(labels)) < float(argument))) % classes

        records = {
            "next-class": SimpleNamespace(build=next_class, needs_images=False, needs_mask=False),
            "own-class": SimpleNamespace(
                build=lambda argument: lambda labels, classes, rng: np.full_like(labels, rng.randint(classes)),
                needs_images=False,
                needs_mask=False,
            ),
            "blurred": SimpleNamespace(build=next_class, needs_images=True, needs_mask=False),
            "by-place": SimpleNamespace(build=next_class, needs_images=False, needs_mask=True),
        }
        monkeypatch.setattr(registry, "find", lambda kind, name: records[name])

    def test_it_is_measured_on_what_the_kind_draws(self, kinds):
        measured = matrix_of_noise("next-class:0.3", C, "--forward-noise next-class:0.3")

        expected = 0.7 * torch.eye(C) + 0.3 * torch.eye(C).roll(1, 1)
        torch.testing.assert_close(measured, expected.double(), rtol=0, atol=0.02)
        torch.testing.assert_close(measured.sum(1), torch.ones(C, dtype=torch.float64))
        assert torch.equal(matrix_of_noise("next-class:0.3", C, ""), measured)

    def test_noise_that_draws_its_classes_from_the_seed_has_none(self, kinds):
        with pytest.raises(UserError, match=r"--forward-noise own-class:1: this noise draws its own classes"):
            correction.forward(CorrectionConfig(noise="own-class:1"), context())

    @pytest.mark.parametrize("kind", ["blurred", "by-place"])
    def test_noise_that_depends_on_the_example_has_none(self, kinds, kind):
        with pytest.raises(UserError, match=rf"--forward-noise {kind}:0\.3: this noise depends on the example"):
            correction.forward(CorrectionConfig(noise=f"{kind}:0.3"), context())


class TestEstimate:
    def posteriors(self, size=300):
        """P(observed | x) = p(true | x) T, with some examples that are of one class for sure."""
        generator = torch.Generator().manual_seed(0)
        clean = torch.rand(size, C, generator=generator, dtype=torch.float64).softmax(1)
        clean[:C] = torch.eye(C)
        return clean @ T

    def test_anchor_points_give_the_matrix(self):
        torch.testing.assert_close(estimate_matrix(self.posteriors(), 100), T, rtol=0, atol=1e-9)

    def test_outliers_above_the_percentile_are_left_out(self):
        probabilities = torch.full((100, C), 1 / C, dtype=torch.float64)
        probabilities[:4] = torch.tensor([0.9, 0.1, 0.0]).double()
        probabilities[4] = torch.tensor([0.99, 0.0, 0.01]).double()

        torch.testing.assert_close(estimate_matrix(probabilities, 99)[0], probabilities[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(estimate_matrix(probabilities, 95)[0], probabilities[9], rtol=0, atol=1e-7)

    def test_every_row_is_a_distribution_without_zeros(self):
        estimated = estimate_matrix(torch.eye(C, dtype=torch.float64), 100)

        assert (estimated > 0).all()
        torch.testing.assert_close(estimated.sum(1), torch.ones(C, dtype=torch.float64))

    def test_a_first_network_estimates_and_a_second_is_trained(self, batch, logits):
        asked = []

        def predict(examples, model):
            asked.append(model)
            return SimpleNamespace(logits=self.posteriors().log())

        around = context(predict=predict, best_network=lambda: "the best")
        loss = correction.forward(CorrectionConfig(percentile=100.0, estimate_epochs=4), around)
        first, second = loss.plan_stages(Stage("train", 10, 0.1, steps=70))
        assert (first.name, second.name) == ("estimate", "train")
        assert (first.epochs, second.epochs, second.start, second.fresh_optimizer) == (4, 10, "initial", True)
        # a method that finds wrong labels would hide them from the estimate
        assert (first.start, first.plain, first.steps, second.steps) == ("continue", True, None, 70)
        loss.finish_epoch(3)
        assert not asked
        assert_cross_entropy(loss, batch, logits)
        loss.finish_epoch(4)

        assert asked == ["the best"]
        expected = Forward(T, context()).losses(batch, logits)
        torch.testing.assert_close(loss.losses(batch, logits), expected, **EXACT)
        resumed = correction.forward(CorrectionConfig(), around)
        resumed.load_state_dict(loss.state_dict())
        assert torch.equal(resumed.losses(batch, logits), loss.losses(batch, logits))

    def test_at_the_default_percentile_the_matrix_is_found_in_posteriors_without_pure_examples(self):
        # a third of a class may be beyond the percentile, and those below it must be as pure
        generator = torch.Generator().manual_seed(0)
        clean = torch.full((3000, C), 0.01 / (C - 1), dtype=torch.float64)
        clean[torch.arange(3000), torch.randint(C, (3000,), generator=generator)] = 0.99

        percentile = correction.forward(CorrectionConfig(), context()).percentile
        assert percentile == pytest.approx(100 - 30 / C)
        torch.testing.assert_close(estimate_matrix(clean @ T, percentile), T, rtol=0, atol=0.01)

    @pytest.mark.parametrize(("classes", "percentile"), [(10, 97), (100, 99.7)])
    def test_the_default_percentile_leaves_out_three_tenths_of_a_class(self, classes, percentile):
        loss = correction.backward(CorrectionConfig(), context(num_classes=classes))

        assert isinstance(loss, Estimate)
        assert loss.percentile == pytest.approx(percentile)
        assert [stage.epochs for stage in loss.plan_stages(Stage("train", 10, 0.1))] == [3, 10]


class TestSModel:
    def loss(self, classes=C, **options):
        def new_optimizer(name, parameters, weight_decay):
            settings = OptimizerSettings(momentum=0.0, weight_decay=weight_decay)
            return ParameterOptimizer(parameters, settings, torch.tensor(0.5, dtype=torch.float64))

        return SModel(SModelConfig(**options), context(num_classes=classes, new_optimizer=new_optimizer))

    def step(self, batch, logits, epoch=0, source="train", trusted=None):
        known = {"n": len(logits), "labels": batch.labels, "logits": logits}
        return SimpleNamespace(**known, epoch=epoch, source=source, trusted=trusted)

    def test_it_begins_as_forward_correction_by_a_smoothed_identity(self, batch, logits):
        smoothed = 0.7 * torch.eye(C, dtype=torch.float64) + 0.15 * (1 - torch.eye(C, dtype=torch.float64))
        forward = Forward(smoothed, context())

        loss = self.loss(eps=0.3)
        torch.testing.assert_close(loss.losses(batch, logits), forward.losses(batch, logits), **EXACT)
        torch.testing.assert_close(rows_of(loss, batch, logits), rows_of(forward, batch, logits), **EXACT)

    @pytest.mark.parametrize("some_are_trusted", [False, True])
    def test_the_channel_follows_its_gradient_after_the_network_moved(self, batch, logits, some_are_trusted):
        loss, trusted = self.loss(eps=0.3), torch.arange(len(logits)) % 2 == 0
        W = loss.W.detach().clone()
        Q, p, n = W.softmax(1), logits.softmax(1), len(logits)
        joint = p * Q.T[batch.labels]
        r = joint / joint.sum(1, keepdim=True)
        gradient = torch.zeros_like(W)
        for i, label in enumerate(batch.labels.tolist()):
            for j in range(C):
                for k in range(C):
                    if not (some_are_trusted and trusted[i]):
                        gradient[j, k] -= r[i, j] * (float(k == label) - Q[j, k]) / n

        loss.follow_forward(self.step(batch, logits, trusted=trusted if some_are_trusted else None))
        assert torch.equal(loss.W, W)
        loss.follow_update({})
        torch.testing.assert_close(loss.W, W - 0.5 * gradient, **EXACT)

    @pytest.mark.parametrize("still", [{"epoch": 2}, {"source": "meta", "epoch": 5}])
    def test_it_is_still_while_frozen_and_on_other_sets(self, batch, logits, still):
        loss = self.loss(freeze=3)
        W = loss.W.detach().clone()
        loss.follow_forward(self.step(batch, logits, epoch=3))
        loss.follow_forward(self.step(batch, logits, **still))
        loss.follow_update({})
        assert torch.equal(loss.W, W)
        loss.follow_forward(self.step(batch, logits, epoch=3))
        loss.follow_update({})
        assert not torch.equal(loss.W, W)

    def test_two_classes_by_hand(self):
        # Q = [[3/4, 1/4], [1/5, 4/5]] and p = (1/2, 1/2)
        loss = self.loss(classes=2)
        loss.W.data.copy_(torch.tensor([[0.75, 0.25], [0.2, 0.8]], dtype=torch.float64).log())
        labels, logits = torch.tensor([1]), torch.zeros(1, 2, dtype=torch.float64)

        # the label 1 is of class 1 with the probability r = 0.4 / (0.125 + 0.4), so p - r is the row
        batch = Batch(torch.arange(1), torch.zeros(1, 1, 1, 1), labels)
        torch.testing.assert_close(loss.losses(batch, logits), -torch.tensor([0.525], dtype=torch.float64).log())
        r = 0.4 / 0.525
        torch.testing.assert_close(
            rows_of(loss, batch, logits), torch.tensor([[r - 0.5, 0.5 - r]], dtype=torch.float64)
        )
