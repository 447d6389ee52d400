from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reweight_core import Stage, UserError
from reweight_core.data.dataset import Split
from reweight_core.testing import exact_run
from reweight_core.testing.exact_run import CLASSES, SIZE, ConvNet, ExactRun, make_examples, make_splits
from reweight_method_selection import crust as module
from reweight_method_selection.crust import parts_of_classes
from reweight_method_selection.options import CrustConfig
from reweight_method_selection.plugin import crust

# the labels of the 30 examples are their positions modulo 4
TRAINING = Stage("train", 120, 0.1)


class EndsInItsHead(ConvNet):
    def forward(self, x):
        return self.head(self.features(x))


def make_model():
    torch.manual_seed(0)
    return EndsInItsHead().double().train()


def make_context(**changes):
    return exact_run.make_context(**{"model": make_model(), **changes})


def make(context=None, **options):
    return crust.build(CrustConfig(**{"warmup_epochs": 0, **options}), context or make_context())


def order(method, stage=TRAINING, epoch=9):
    return method.order_epoch(stage, epoch, SIZE, np.random.RandomState(3))


def feature_gradients():
    """The gradient of each loss at the last layer's input by autograd, (N, d)."""
    model, train = make_model().eval(), make_examples(make_splits()[0])
    inputs = train.batch(torch.arange(SIZE), None).inputs
    features = model.features(inputs).detach().requires_grad_()
    F.cross_entropy(model.head(features), train.labels, reduction="sum").backward()
    return features.grad


class TestChoice:
    def test_gradients_are_those_of_autograd(self):
        torch.testing.assert_close(make().last_layer_gradients(), feature_gradients())

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
    def test_the_most_central_of_each_class_are_chosen(self, share):
        g = feature_gradients().numpy()
        expected = []
        for c in range(CLASSES):
            members = range(c, SIZE, CLASSES)
            total = {i: sum(np.linalg.norm(g[i] - g[j]) for j in members) for i in members}
            expected += sorted(members, key=total.get)[: max(1, int(share * len(members)))]

        assert sorted(order(make(share=share))) == sorted(expected)

    def test_medoids_count_as_often_as_they_have_examples_nearest_to_them(self):
        context = make_context()
        method = make(context, coreset="facility-location", mix=False)
        chosen = order(method)
        g, counts = feature_gradients().numpy(), {int(i): 0 for i in chosen}
        for i in range(SIZE):
            medoids = [m for m in counts if m % CLASSES == i % CLASSES]
            counts[min(medoids, key=lambda m, i=i: np.linalg.norm(g[i] - g[m]))] += 1
        ids = [int(i) for i in chosen[:10]]
        weights = ExactRun(method).take(ids, 0.1)
        expected = torch.tensor([counts[i] for i in ids], dtype=torch.float64)

        assert sorted(np.bincount(chosen % CLASSES)) == [3, 3, 4, 4]
        assert expected.max() > expected.min()
        torch.testing.assert_close(weights, 10 * expected / expected.sum())

    @pytest.mark.parametrize("coreset", ["central", "facility-location"])
    def test_with_all_kept_it_is_plain_training_on_every_example_once(self, coreset):
        method = make(share=1.0, coreset=coreset, mix=False)
        chosen = order(method)
        run = ExactRun(method)

        assert sorted(chosen) == list(range(SIZE))
        assert all(run.take(chosen[i : i + 10], 0.1).eq(1).all() for i in (0, 10, 20))

    def test_they_come_in_random_order(self):
        first, second = (make().order_epoch(TRAINING, 9, SIZE, np.random.RandomState(seed)) for seed in (1, 2))

        assert first.tolist() != second.tolist()
        assert sorted(first) == sorted(second)

    def test_the_network_stays_as_it_is(self):
        context = make_context()
        before = {name: tensor.clone() for name, tensor in context.model.state_dict().items()}
        order(make(context))

        assert context.model.training
        assert all(torch.equal(tensor, before[name]) for name, tensor in context.model.state_dict().items())


class TestWhenItChooses:
    def test_everything_is_trained_on_before_and_in_stages_of_other_kinds(self):
        method = make(warmup_epochs=5)
        for stage, epoch in (
            (TRAINING, 4),
            (Stage("plain", 1, 0.1, plain=True), 9),
            (Stage("both", 1, 0.1, source="both"), 9),
        ):
            assert order(method, stage, epoch) is None
            assert method.trusted_examples() is None
            assert ExactRun(method).take(range(10), 0.1).eq(1).all()
        assert order(method, TRAINING, 5) is not None

    def test_a_new_stage_forgets_the_choice(self):
        method = make()
        chosen = order(method)
        assert method.trusted_examples()["coreset"].tolist() == chosen.tolist()
        method.begin_stage(Stage("meta", 1, 0.1, source="meta"))

        assert method.trusted_examples() is None

    def test_of_a_stage_that_goes_through_some_examples_it_chooses_among_these(self):
        ids = np.arange(12)
        chosen = order(make(), Stage("train", 9, 0.1, ids=ids))

        assert set(chosen) <= set(ids)
        assert np.bincount(chosen % CLASSES).tolist() == [1] * CLASSES


class TestMixing:
    @pytest.fixture
    def tested(self):
        """A method on images of which each has one pixel of its own lit."""
        images = np.zeros((SIZE, 3, 5, 5), np.uint8)
        images.reshape(SIZE, -1)[np.arange(SIZE), np.arange(SIZE)] = 240
        train = make_examples(Split(images, make_splits()[0].labels))
        dark = -127 / 60

        def lit(batch):
            return ((batch.inputs - dark).reshape(len(batch.ids), -1) / (240 / 60))[:, :SIZE]

        method = make(make_context(train=train))
        order(method)
        return SimpleNamespace(method=method, train=train, lit=lit)

    def test_images_are_mixed_with_any_of_their_class_by_one_share_for_the_batch(self, tested):
        partners, shares = {i: set() for i in (0, 1, 2)}, []
        for _ in range(200):
            rows = tested.lit(tested.method.transform_batch(tested.train.batch(torch.arange(3), None)))
            torch.testing.assert_close(rows.sum(1), torch.ones(3).double())
            others = rows.clone()
            others[range(3), range(3)] = 0
            for i in range(3):
                partners[i] |= set(others[i].nonzero().flatten().tolist())
            # a pair with itself shows no share
            shown = others.sum(1)[others.sum(1) > 0]
            assert shown.allclose(shown[:1].expand_as(shown), rtol=1e-6, atol=1e-12)
            shares += shown[:1].tolist()

        for i in range(3):
            assert partners[i] == set(range(i, SIZE, CLASSES)) - {i}
        # Beta(0.1, 1): mean 1/11, and P(s < 2^-10) = 1/2
        assert abs(np.mean(shares) - 1 / 11) < 4 * np.sqrt(0.04 / len(shares))
        assert 0.35 < np.mean(np.array(shares) < 2.0**-10) < 0.65

    def test_labels_stay_and_nothing_is_mixed_before_a_choice_or_when_not_wanted(self, tested):
        batch = tested.train.batch(torch.arange(9), None)
        mixed = tested.method.transform_batch(batch)
        assert mixed.targets is None and torch.equal(mixed.labels, batch.labels)
        tested.method.begin_stage(TRAINING)
        assert tested.method.transform_batch(batch) is batch
        unmixed = make(make_context(train=tested.train), mix=False)
        order(unmixed)
        assert unmixed.transform_batch(batch) is batch

    def test_restored_it_draws_the_same(self, tested):
        batch = tested.train.batch(torch.arange(9), None)
        tested.method.transform_batch(batch)
        restored = make(make_context(train=tested.train, seed=77))
        order(restored)
        restored.load_state_dict({name: tensor.clone() for name, tensor in tested.method.state_dict().items()})

        assert torch.equal(restored.transform_batch(batch).inputs, tested.method.transform_batch(batch).inputs)


class TestRefusals:
    def test_images_in_files_cannot_be_mixed(self):
        context = make_context(train=SimpleNamespace(is_read_ahead=True))

        with pytest.raises(UserError, match=r"--mix: .*--no-mix or --stream off"):
            make(context)

    def test_a_network_must_end_in_a_linear_layer(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(75, CLASSES), nn.Tanh()).double()

        with pytest.raises(UserError, match="ends in a linear layer"):
            make(make_context(model=model))


class TestParts:
    LABELS = np.repeat([0, 1, 2], [3, 25, 12])

    def test_classes_are_cut_into_parts_that_fit(self, monkeypatch):
        monkeypatch.setattr(module, "LARGEST_PART", 10)
        parts = parts_of_classes(np.arange(40), self.LABELS, np.random.RandomState(0))

        assert sorted(np.concatenate(parts)) == list(range(40))
        assert all(len(set(self.LABELS[part])) == 1 for part in parts)
        assert sorted(map(len, parts)) == [3, 6, 6, 8, 8, 9]
        # at random
        assert any((np.diff(np.sort(part)) > 1).any() for part in parts)

    def test_only_candidates_are_in_them(self):
        parts = parts_of_classes(np.array([1, 30, 35]), self.LABELS, np.random.RandomState(0))

        assert sorted(map(sorted, parts)) == [[1], [30, 35]]
