"""``--meta-use both``: trusted examples among the training examples."""

import json
from contextlib import nullcontext

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch.func import functional_call

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.images import ImageFiles
from reweight_core.data.prepare import Plan, prepare
from reweight_core.data.trusted import with_trusted
from reweight_core.errors import UserError
from reweight_core.plugins import erm
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import ComponentPlugin
from reweight_core.runs.checkpoint import load_latest
from reweight_core.testing import tiny_parts, train_in
from reweight_core.training.build import build_parts
from reweight_core.training.held_out import HeldOut
from reweight_core.training.loop import train_to_the_end
from reweight_core.training.state import TrainingState

N, M = 44, 8
"""Training and meta examples of the tiny dataset."""


def split_of(labels, offset=0, names=True):
    """Each image holds its position, plus the offset, in two bytes."""
    codes = np.arange(len(labels)) + offset
    images = np.stack([codes % 256, codes // 256], axis=1).astype(np.uint8).reshape(-1, 1, 1, 2)
    return Split(images, labels, tuple(f"image {code}" for code in codes) if names else None)


def codes_of(split):
    images = split.images.astype(int)
    return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1]


def dataset_of(per_class=40, meta=None, **fields):
    return Dataset(
        train=split_of(np.repeat(np.arange(3), per_class)),
        test=None,
        classes=("a", "b", "c"),
        mean=(0.0,),
        std=(1.0,),
        meta=None if meta is None else split_of(np.repeat(np.arange(3), meta), offset=10_000),
        **fields,
    )


def next_class(labels, num_classes, rng):
    return (labels + 1) % num_classes


class TestHalves:
    @given(size=st.integers(4, 30), seed=st.integers(0, 2**32 - 2), draw=st.sampled_from(["balanced", "random"]))
    def test_they_are_disjoint_by_class_and_together_the_meta_set(self, size, seed, draw):
        plan = Plan(seed=seed, meta_size=size, meta_draw=draw, test="none", corrupt=next_class)
        before = prepare(dataset_of(), plan)
        data = with_trusted(before, seed, hold_out=True)
        taken = data.train.take(np.flatnonzero(data.trusted))
        assert sorted([*codes_of(taken), *codes_of(data.meta)]) == sorted(codes_of(before.meta))
        counts = [np.bincount(part.labels, minlength=3) for part in (taken, data.meta)]
        # of an odd number, the example that is left is looked ahead at
        assert set((counts[1] - counts[0]).tolist()) <= {0, 1}
        # a given meta set is drawn anew in every seed, but the same seed gives the same halves
        again = with_trusted(prepare(dataset_of(), plan), seed, hold_out=True)
        assert np.array_equal(again.ids, data.ids)

    @pytest.mark.parametrize("seed", range(5))
    def test_every_class_is_looked_ahead_at(self, seed):
        before = prepare(dataset_of(), Plan(meta_size=4, seed=seed, test="none"))
        assert sorted(np.bincount(before.meta.labels)) == [1, 1, 2]
        data = with_trusted(before, seed, hold_out=True)
        assert np.bincount(data.meta.labels).tolist() == [1, 1, 1]
        assert data.trusted.sum() == 1

    def test_they_are_those_of_the_seed(self):
        data = prepare(dataset_of(meta=20), Plan(test="none"))
        halves = {tuple(codes_of(with_trusted(data, seed, hold_out=True).meta)) for seed in range(5)}
        assert len(halves) == 5

    @pytest.mark.parametrize("own", [False, True], ids=["taken out", "the dataset's own"])
    def test_trusted_rows_stand_last_with_what_is_known_of_them(self, own):
        dataset = dataset_of(meta=5 if own else None, trusted=False)
        plan = Plan(meta_size=None if own else 15, test="none", corrupt=None)
        with nullcontext() if own else pytest.warns(match="are trusted to be clean"):
            before = prepare(dataset, plan)
        data = with_trusted(before, 0, hold_out=True)
        assert np.array_equal(codes_of(data.train)[: len(before.train)], codes_of(before.train))
        assert data.trusted.tolist() == [False] * len(before.train) + [True] * 6
        everything = np.concatenate([codes_of(dataset.train), codes_of(dataset.meta) if own else []])
        assert np.array_equal(everything[data.ids], codes_of(data.train))
        assert np.array_equal(everything[data.meta_ids + (len(dataset.train) if own else 0)], codes_of(data.meta))
        assert data.train.names == tuple(f"image {code}" for code in codes_of(data.train))
        # the labels of the others are not known to be right, and so neither is the share of wrong ones
        assert (data.true_labels[~data.trusted] == -1).all()
        assert np.array_equal(data.true_labels[data.trusted], data.train.labels[data.trusted])
        assert data.noise_rate is None

    def test_the_noise_rate_is_that_of_all_that_is_trained_on(self):
        plan = Plan(meta_size=30, test="none", corrupt=next_class)
        data = with_trusted(prepare(dataset_of(), plan), 0, hold_out=False)
        # 90 labels are wrong, and the 30 trusted ones are right
        assert data.noise_rate == 90 / 120
        assert data.meta is None

    @pytest.mark.parametrize("own", [False, True])
    def test_a_fold_is_in_neither_half(self, own):
        plan = Plan(meta_size=None if own else 30, test="none", val_fold=(2, 3))
        data = with_trusted(prepare(dataset_of(meta=10 if own else None), plan), 0, hold_out=True)
        parts = [set(codes_of(part)) for part in (data.train, data.meta, data.val)]
        assert [len(part) for part in parts] == [(120 if own else 90) + 9, 11, 10]
        assert len(set.union(*parts)) == sum(map(len, parts))

    def test_images_that_are_read_while_training_are_found_under_their_names(self, tmp_path):
        def in_files(names):
            return Split(ImageFiles(tmp_path, np.array(names, dtype=object), 4), np.arange(len(names)), tuple(names))

        joint = in_files(["a.png", "b.png"]).followed_by(in_files(["c.png", "d.png"]))
        assert [joint.images.root / name for name in joint.images.names] == [tmp_path / f"{c}.png" for c in "abcd"]
        assert joint.names == ("a.png", "b.png", "c.png", "d.png")

    def test_sets_without_names_and_with_them_have_none_together(self):
        named, nameless = split_of(np.arange(2)), split_of(np.arange(2), names=False)
        assert named.followed_by(nameless).names is None
        assert nameless.followed_by(named).names is None


class Wild:
    """A method that looks ahead, and treats every example in a way that no trusted one should be treated."""

    def __init__(self, shape=()):
        self.shape, self.steps, self.batches = shape, [], []

    def build(self, config, context):
        return self

    @hookimpl
    def transform_batch(self, batch):
        # the ids that were fed keep their address
        self.batches.append(attrs.evolve(batch, ids=batch.ids.clone()))
        return batch

    @hookimpl
    def generate_weights(self, step):
        step.meta_loss(step.D)
        self.steps.append(step)
        return torch.full((step.n, *self.shape), 7.0)

    @hookimpl
    def manipulate_gradient(self, step, weights):
        return (weights if weights.dim() == 2 else weights[:, None]) * step.D + 0.5

    @hookimpl
    def example_weights(self, step, weights):
        return torch.full((step.n,), 3.0)


def use(monkeypatch, method, **record):
    record = attrs.evolve(erm.plugin, build=method.build, **record)
    monkeypatch.setattr("reweight_core.plugins.erm.plugin", record)


LOOKS_AHEAD = {"needs_meta_set": True, "looks_ahead": "network"}

OPTIONS = {"model": "mlp", "meta_use": "both", "lr": 1e-3, "lookahead": "jvp"}


class TestStep:
    @pytest.mark.parametrize("shape", [(), (4,)], ids=["weights of examples", "weights of classes"])
    def test_trusted_rows_are_those_of_plain_training_whatever_the_method_says(self, monkeypatch, tmp_path, shape):
        method = Wild(shape)
        use(monkeypatch, method, **LOOKS_AHEAD)
        parts = tiny_parts("erm", **OPTIONS, epochs=1)
        train_in(tmp_path / "run", parts)
        assert sorted(torch.cat([batch.ids for batch in method.batches]).tolist()) == list(range(N + M // 2))
        for step, batch in zip(method.steps, method.batches, strict=True):
            trusted = batch.ids >= N
            plain = (step.probabilities - step.one_hot) / step.n
            torch.testing.assert_close(step.D_prime[trusted], plain[trusted])
            torch.testing.assert_close(step.D_prime[~trusted], (7 * plain + 0.5)[~trusted])
            assert (step.weights[trusted] == 1).all()
            assert (step.weights[~trusted] == 7).all()
        samples = load_file(tmp_path / "run" / "samples.safetensors")
        assert samples["last_weight"].tolist() == [3] * N + [1] * (M // 2)
        assert samples["mean_weight"].tolist() == [3] * N + [1] * (M // 2)
        assert samples["trusted"].tolist() == [False] * N + [True] * (M // 2)
        assert np.array_equal(samples["true"][N:], samples["observed"][N:])

    def test_no_example_that_is_trained_on_is_looked_ahead_at(self, monkeypatch, tmp_path):
        method = Wild()
        use(monkeypatch, method, **LOOKS_AHEAD)
        train_in(tmp_path / "run", tiny_parts("erm", **OPTIONS, augment="none", meta_batch_size=3))

        def images(batches):
            return {image.numpy().tobytes() for batch in batches for image in batch.inputs}

        trained, looked_at = images(method.batches), images([step.meta for step in method.steps])
        assert (len(trained), len(looked_at)) == (N + M // 2, M // 2)
        assert not trained & looked_at

    @pytest.mark.parametrize("later", [False, True], ids=["D'", "a function that gives it"])
    def test_the_virtual_step_is_plain_for_them_too(self, monkeypatch, tmp_path, later):
        found, expected, gradients = [], [], []

        class Looking(Wild):
            def build(self, config, context):
                self.model = context.model
                return self

            @hookimpl
            def generate_weights(self, step):
                w = torch.full((step.n,), 7.0, requires_grad=True)
                look = step.look_ahead((lambda: w[:, None] * step.D) if later else w[:, None] * step.D)
                loss = look.close(step.meta_objective(look.logits))
                gradients.append((step.ids.clone(), torch.autograd.grad(loss, w)[0]))
                found.append(loss.detach())
                expected.append(self.by_hand(step))
                return w.detach()

            @torch.enable_grad()
            def by_hand(self, step):
                theta = dict(self.model.named_parameters())
                logits = functional_call(self.model, theta, step.inputs)
                weights = torch.where(step.ids >= N, 1.0, 7.0)
                loss = (weights * F.cross_entropy(logits, step.labels, reduction="none")).mean()
                moved = {
                    name: p - step.lr * gradient
                    for (name, p), gradient in zip(
                        theta.items(), torch.autograd.grad(loss, [*theta.values()]), strict=True
                    )
                }
                return F.cross_entropy(functional_call(self.model, moved, step.meta.inputs), step.meta.labels).detach()

        use(monkeypatch, Looking(), **LOOKS_AHEAD)
        train_in(tmp_path / "run", tiny_parts("erm", **OPTIONS | {"lr": 0.05}, max_grad_norm=1.0))
        torch.testing.assert_close(torch.stack(found), torch.stack(expected))
        for ids, gradient in gradients:
            assert (gradient[ids >= N] == 0).all()
            assert (gradient[ids < N] != 0).all()

    @pytest.mark.parametrize("shape", [(), (4,)], ids=["weights of examples", "weights of classes"])
    @pytest.mark.parametrize(
        ("order", "ratio"), [(None, 1), (np.arange(N, N + M // 2), 0)], ids=["all", "trusted ones"]
    )
    def test_steps_without_a_weight_are_those_in_which_the_method_gave_none(
        self, monkeypatch, tmp_path, shape, order, ratio
    ):
        class Nothing(Wild):
            @hookimpl
            def order_epoch(self, stage, epoch, size, rng):
                return np.arange(size) if order is None else order

            @hookimpl
            def generate_weights(self, step):
                return torch.zeros(step.n, *self.shape)

        use(monkeypatch, Nothing(shape), needs_meta_set=True)
        train_in(tmp_path / "run", tiny_parts("erm", **OPTIONS, epochs=1))
        metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
        assert metrics["zero_step_ratio"] == ratio

    def test_a_batch_tells_plugins_which_examples_are_trusted(self, monkeypatch, tmp_path):
        method = Wild()
        use(monkeypatch, method, **LOOKS_AHEAD)
        train_in(tmp_path / "run", tiny_parts("erm", **OPTIONS, epochs=1))
        assert all(torch.equal(batch.trusted, batch.ids >= N) for batch in method.batches)


class TestRun:
    def test_plain_training_is_that_on_a_dataset_with_these_examples_in_it(self, tmp_path):
        parts = tiny_parts("erm", model="mlp", lr=1e-3, meta_use="both")
        dataset, plain = parts.data.dataset, tiny_parts("erm", model="mlp", lr=1e-3, meta_set=False)
        train = Split(
            np.concatenate([plain.data.train.images, dataset.meta.images]),
            np.concatenate([plain.data.train.labels, dataset.meta.labels]),
        )
        data = attrs.evolve(plain.data, train=train, ids=np.arange(N + M), true_labels=np.full(N + M, -1))
        ordinary = build_parts(plain.config, data)
        assert parts.meta is None
        assert len(parts.train) == N + M
        train_in(tmp_path / "trusted", parts)
        train_in(tmp_path / "ordinary", ordinary)
        expected = ordinary.model.state_dict()
        for name, tensor in parts.model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name

    def test_the_record_says_how_many_there_are(self, monkeypatch, tmp_path):
        use(monkeypatch, Wild(), **LOOKS_AHEAD)
        train_in(tmp_path / "run", tiny_parts("erm", **OPTIONS, epochs=1))
        of_data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
        sizes = [of_data[f"{part}_size"] for part in ("train", "trusted", "meta")]
        assert sizes == [N + M // 2, M // 2, M // 2]
        # a quarter of the N labels are wrong, and none of the trusted
        assert of_data["noise_rate"] == pytest.approx(11 / (N + M // 2))

    def test_a_resumed_run_is_the_uninterrupted_one(self, monkeypatch, tmp_path):
        class Interrupt:
            @hookimpl
            def observe_step(self, done):
                if done == 8:
                    raise KeyboardInterrupt

        options = {**OPTIONS, "epochs": 3, "checkpoint_every": "1epochs"}
        use(monkeypatch, Wild(), **LOOKS_AHEAD)
        whole = train_in(tmp_path / "whole", tiny_parts("erm", **options))
        with pytest.raises(KeyboardInterrupt):
            train_in(tmp_path / "run", tiny_parts("erm", observers=[Interrupt()], **options))
        parts = tiny_parts("erm", **options)
        state = TrainingState(parts)
        state.restore(load_latest(tmp_path / "run" / "checkpoints"))
        assert state.epochs_done == 1
        train_to_the_end(state, HeldOut.of(parts.config, parts.data, parts.device), tmp_path / "run", "")
        expected = whole.model.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in parts.model.state_dict().items())
        tables = [load_file(tmp_path / name / "samples.safetensors") for name in ("run", "whole")]
        assert all(np.array_equal(column, tables[1][name]) for name, column in tables[0].items())


class Staged:
    """A method with one stage on a source."""

    def __init__(self, source, plain=False):
        self.source, self.plain = source, plain

    def build(self, config, context):
        return self

    @hookimpl
    def plan_stages(self, stage):
        return [stage, attrs.evolve(stage, name="gold", source=self.source, plain=self.plain)]


class TestRefusals:
    def refusal(self, **options):
        with pytest.raises(UserError) as refused:
            tiny_parts("erm", **OPTIONS, **options)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def test_without_a_meta_set(self):
        assert "--meta-use both: there are no clean examples" in self.refusal(meta_set=False)

    @pytest.mark.parametrize("source", ["meta", "both"])
    def test_a_method_that_trains_on_the_clean_examples_itself(self, monkeypatch, source):
        use(monkeypatch, Staged(source), needs_meta_set=True)
        found = self.refusal()
        assert found.startswith("--meta-use both: stage 'gold' of method 'erm' trains on the clean examples itself")

    def test_a_stage_on_clean_examples_of_which_the_record_says_nothing(self, monkeypatch):
        use(monkeypatch, Staged("meta"))
        found = self.refusal()
        assert "stage 'gold' of method 'erm' trains on clean examples, and none are kept for it" in found
        assert "needs_meta_set=True" in found

    def test_a_stage_of_plain_training_on_the_other_half_is_no_contradiction(self, monkeypatch, tmp_path):
        use(monkeypatch, Staged("meta", plain=True), needs_meta_set=True)
        parts = tiny_parts("erm", **OPTIONS, epochs=1)
        assert len(parts.meta) == M // 2
        train_in(tmp_path / "run", parts)

    def test_halves_of_which_one_is_empty(self):
        data = prepare(dataset_of(), Plan(meta_size=3, test="none"))
        with pytest.raises(UserError, match="no class has two clean examples") as refused:
            with_trusted(data, 0, hold_out=True)
        assert "\n" not in str(refused.value)
        assert len(with_trusted(data, 0, hold_out=False).train) == 120

    @pytest.mark.parametrize(("answer", "kept"), [(True, M // 2), (False, 0)])
    def test_a_record_can_let_options_say_whether_a_half_is_kept(self, monkeypatch, answer, kept):
        asked = []
        use(monkeypatch, Staged("train"), uses_meta_set=lambda config: asked.append(config) or answer)
        parts = tiny_parts("erm", **OPTIONS)
        assert asked == [parts.config.method_options]
        assert len(parts.meta or ()) == kept
        assert len(parts.train) == N + M - kept

    def test_a_component_that_needs_clean_examples_says_so_and_has_a_half(self, monkeypatch):
        record = ComponentPlugin("gold", "gold", lambda config, context: object(), needs_meta_set=True)
        monkeypatch.setattr("reweight_core.plugins.registry.find", _finding(record))
        assert len(tiny_parts("erm", **OPTIONS, **{"with": ("gold",)}).meta) == M // 2
        with pytest.raises(UserError, match="--with gold: needs clean examples"):
            tiny_parts("erm", model="mlp", meta_set=False, **{"with": ("gold",)})


def _finding(record):
    from reweight_core.plugins.registry import find

    return lambda kind, name: record if (kind, name) == ("component", record.name) else find(kind, name)
