import copy
import itertools

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import nn

from reweight_core.data.dataset import Dataset, Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Fed
from reweight_core.engine.epoch_sums import effective_number
from reweight_core.engine.lookahead import Choice
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.stage import Stage
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import hookimpl

EXACT_STRATEGIES = ("jvp", "double")

CLASSES = 3
SIZE, META_SIZE = 20, 6
RATES = (0.125, 0.0625, 0.25)  # exact in every number type
MOMENTUM, DECAY = 0.9, 0.01
# two epochs of batches of 8, the last one smaller
BATCHES = [list(order[i : i + 8]) for order in (range(SIZE), range(SIZE - 1, -1, -1)) for i in (0, 8, 16)]
PRECISION = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-6, "atol": 1e-6}}


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.drop(F.relu(self.norm(self.conv(x))).mean((2, 3))))


def splits():
    rng = np.random.RandomState(1)

    def split(size):
        return Split(rng.randint(256, size=(size, 1, 5, 5)).astype(np.uint8), np.arange(size) % CLASSES)

    return split(SIZE), split(META_SIZE)


def make(method=None, dtype=torch.float64, augment="none", dropout=0.0, strategy="jvp", seed=3, factors=None):
    """A step and its network, which is the same in every call."""
    train, meta = splits()
    dataset = Dataset(
        train=train,
        test=meta,
        classes=("a", "b", "c"),
        mean=(127.0,),
        std=(60.0,),
        augment=augment,
        padding=1,
    )
    torch.manual_seed(0)
    model = Net(dropout).to(dtype).train()
    hooks = method if isinstance(method, MethodHooks) else MethodHooks(method or object(), "method")
    step = TrainingStep(
        model,
        hooks,
        Choice(strategy),
        Examples(train, dataset, torch.device("cpu"), dtype),
        Examples(meta, dataset, torch.device("cpu"), dtype),
        settings=OptimizerSettings(momentum=MOMENTUM, weight_decay=DECAY),
        seed=seed,
        factors=factors,
    )
    return step, model


def take(step, ids, rate=RATES[0], source="train"):
    step.lr.fill_(rate)
    step.feed(Fed(torch.tensor(ids), torch.arange(META_SIZE)))
    step.run(len(ids), Stage(source, 1, 0.0, source=source))


def plain_training(dtype, batches=BATCHES, split=None, weights=None):
    """Train as a textbook does; after every step yield the network and the batch's logits and labels."""
    split = split or splits()[0]
    torch.manual_seed(0)
    model = Net().to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=DECAY)
    for k, ids in enumerate(batches):
        optimizer.param_groups[0]["lr"] = RATES[k % len(RATES)]
        images = torch.from_numpy(split.images[ids]).to(dtype)
        labels = torch.from_numpy(split.labels[ids])
        logits = model((images - 127) / 60)
        losses = F.cross_entropy(logits, labels, reduction="none")
        optimizer.zero_grad()
        (losses if weights is None else losses * weights[ids].to(dtype)).mean().backward()
        optimizer.step()
        yield model, logits.detach(), labels


def assert_same_network(found, expected, **precision):
    expected = expected.state_dict()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], **precision, msg=lambda m, n=name: f"{n}: {m}")


class FromTable:
    """Gives every example the weight that a table has for it."""

    def __init__(self, table):
        self._table = table

    @hookimpl
    def generate_weights(self, step):
        return self._table[step.ids].to(step.D.dtype)


class Looking:
    """Looks ahead and keeps the meta losses that it saw."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def generate_weights(self, step):
        w = torch.ones_like(step.losses, requires_grad=True)
        loss = step.meta_loss(w[:, None] * step.D)
        self.seen.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, w)
        return 1 - gradient.sign() / 2


class TestPlainTraining:
    def test_the_reference_itself_learns(self):
        """An oracle that stood still would agree with anything that stands still."""
        first, *_, last = (copy.deepcopy(model) for model, _, _ in plain_training(torch.float64))

        for a, b in zip(first.parameters(), last.parameters(), strict=True):
            assert not torch.allclose(a, b)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_parameters_and_running_statistics_are_those_of_plain_sgd_after_every_step(self, dtype):
        step, model = make(dtype=dtype)
        for k, (expected, _, _) in enumerate(plain_training(dtype)):
            take(step, BATCHES[k], RATES[k % len(RATES)])
            assert_same_network(model, expected, **PRECISION[dtype])

    def test_weights_multiply_the_losses_of_the_mean(self):
        table = torch.linspace(0, 3, SIZE, dtype=torch.float64)
        step, model = make(FromTable(table))
        for k, (expected, _, _) in enumerate(plain_training(torch.float64, weights=table)):
            take(step, BATCHES[k], RATES[k % len(RATES)])
            assert_same_network(model, expected, **PRECISION[torch.float64])

    def test_a_weight_for_each_class_multiplies_the_entries_of_the_logit_gradient(self):
        omega = torch.rand(SIZE, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        step, model = make(FromTable(omega))
        plain = copy.deepcopy(model)
        ids = BATCHES[0]
        images, labels = torch.from_numpy(splits()[0].images[ids]).double(), torch.arange(8) % CLASSES
        logits = plain((images - 127) / 60)
        logits.retain_grad()
        logits.register_hook(lambda D: omega[ids] * D)
        F.cross_entropy(logits, labels).backward()
        torch.optim.SGD(plain.parameters(), lr=RATES[0], weight_decay=DECAY).step()

        take(step, ids)

        assert_same_network(model, plain, **PRECISION[torch.float64])

    def test_weights_that_are_still_attached_make_no_difference(self):
        class Attached(FromTable):
            @hookimpl
            def generate_weights(self, step):
                return self._table[step.ids] * torch.ones((), dtype=torch.float64, requires_grad=True)

        table = torch.linspace(0, 3, SIZE, dtype=torch.float64)
        runs = [make(FromTable(table)), make(Attached(table))]
        for step, _ in runs:
            take(step, BATCHES[0])

        assert_same_network(runs[0][1], runs[1][1], rtol=0, atol=0)

    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_a_look_ahead_that_is_differentiated_by_backward_leaves_nothing_in_the_real_update(self, strategy):
        class LooksForNothing:
            @hookimpl
            def generate_weights(self, step):
                w = torch.ones_like(step.losses, requires_grad=True)
                # backward, not grad: it reaches the parameters, too
                step.meta_loss(w[:, None] * step.D).backward()
                return torch.ones_like(step.losses)

        step, model = make(LooksForNothing(), strategy=strategy)
        for k, (expected, _, _) in enumerate(plain_training(torch.float64)):
            take(step, BATCHES[k], RATES[k % len(RATES)])
            assert_same_network(model, expected, **PRECISION[torch.float64])

    def test_a_rate_of_zero_changes_running_statistics_only(self):
        step, model = make()
        before = copy.deepcopy(model)
        take(step, BATCHES[0], rate=0.0)

        for found, expected in zip(model.parameters(), before.parameters(), strict=True):
            assert torch.equal(found, expected)
        assert not torch.equal(model.norm.running_mean, before.norm.running_mean)

    def test_parameters_and_gradients_keep_their_addresses(self):
        step, model = make(Looking())

        def addresses():
            return [(p.data_ptr(), p.grad.data_ptr()) for p in model.parameters()]

        before = addresses()
        for ids in BATCHES:
            take(step, ids)

        assert addresses() == before


class TestTrainingOnTheMetaSet:
    def test_it_is_plain_training_on_the_meta_set(self):
        batches = [[0, 3, 5, 1], [2, 4, 0]]
        step, model = make()
        for k, (expected, _, _) in enumerate(plain_training(torch.float64, batches, splits()[1])):
            take(step, batches[k], RATES[k], source="meta")
            assert_same_network(model, expected, **PRECISION[torch.float64])

    def test_records_of_the_training_set_stay_empty(self):
        step, _ = make()
        take(step, [0, 3, 5, 1], source="meta")

        assert step.samples.tensors["visits"].eq(0).all()
        assert step.samples.tensors["weight_sum"].eq(0).all()


class TestEpochSums:
    def test_of_losses_and_examples(self):
        step, _ = make()
        total = 0.0
        for k, (_, logits, labels) in enumerate(plain_training(torch.float64, BATCHES[:3])):
            take(step, BATCHES[k], RATES[k])
            total += F.cross_entropy(logits, labels, reduction="sum").item()

        assert step.sums.train_loss.item() == pytest.approx(total, rel=1e-6)
        assert step.sums.examples.item() == SIZE
        assert step.sums.meta_loss.item() == step.sums.meta_steps.item() == 0

    def test_of_meta_losses(self):
        method = Looking()
        step, _ = make(method)
        for ids in BATCHES[:3]:
            take(step, ids)

        assert len(set(method.seen)) == 3
        assert step.sums.meta_loss.item() == pytest.approx(sum(method.seen), rel=1e-6)
        assert step.sums.meta_steps.item() == 3

    def test_of_the_examples_that_the_steps_rest_on(self):
        table = torch.linspace(0, 3, SIZE, dtype=torch.float64)
        step, _ = make(FromTable(table))
        for ids in BATCHES[:3]:
            take(step, ids)

        expected = [table[ids].sum() ** 2 / table[ids].square().sum() for ids in BATCHES[:3]]
        assert step.sums.effective_examples.item() == pytest.approx(sum(expected).item(), rel=1e-6)
        assert step.sums.steps.item() == 3

    def test_of_labels_hits_and_predictions_by_class(self):
        step, _ = make()
        seen = []
        for k, (_, logits, labels) in enumerate(plain_training(torch.float64, BATCHES[:3])):
            take(step, BATCHES[k], RATES[k])
            seen.append((labels, logits.argmax(1)))

        labels, predicted = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
        table = confusion_matrix(labels, predicted, labels=range(CLASSES))
        assert step.sums.labels.tolist() == table.sum(1).tolist()
        assert step.sums.hits.tolist() == table.diagonal().tolist()
        assert step.sums.predictions.tolist() == table.sum(0).tolist()

    def test_of_steps_without_a_weight(self):
        table = torch.zeros(SIZE, dtype=torch.float64)
        table[BATCHES[1][0]] = 1e-9
        step, _ = make(FromTable(table))
        for ids in BATCHES[:3]:
            take(step, ids)
        assert step.sums.zero_steps.item() == 2

    def test_start_again_in_place(self):
        step, _ = make(Looking())
        take(step, BATCHES[0])
        sums = attrs.astuple(step.sums, recurse=False)
        addresses = [tensor.data_ptr() for tensor in sums]
        step.sums.reset()

        assert step.sums.labels.shape == step.sums.hits.shape == step.sums.predictions.shape == (CLASSES,)
        assert all(tensor.eq(0).all() for tensor in sums)
        assert [getattr(step.sums, f.name).data_ptr() for f in attrs.fields(type(step.sums))] == addresses


class TestEffectiveNumber:
    @pytest.mark.parametrize(
        ("weights", "expected"),
        [([0.3] * 5, 5), ([0, 2, 0, 0], 1), ([0, 7, 7, 7], 3), ([3, 1], 1.6), ([0, 0, 0], 0)],
    )
    def test_of_weights_made_by_hand(self, weights, expected):
        assert effective_number(torch.tensor(weights, dtype=torch.float32)).item() == pytest.approx(expected)


class TestSampleTable:
    def test_holds_what_the_last_visit_saw(self):
        table = torch.linspace(0, 3, SIZE, dtype=torch.float64)
        step, _ = make(FromTable(table))
        expected = {name: torch.zeros(SIZE) for name in ("loss", "probability", "margin", "predicted")}
        for k, (_, logits, labels) in enumerate(plain_training(torch.float64, weights=table)):
            take(step, BATCHES[k], RATES[k % len(RATES)])
            for i, row, label in zip(BATCHES[k], logits.tolist(), labels.tolist(), strict=True):
                exponentials = np.exp(row)
                others = row[:label] + row[label + 1 :]
                expected["probability"][i] = exponentials[label] / exponentials.sum()
                expected["loss"][i] = -np.log(exponentials[label] / exponentials.sum())
                expected["margin"][i] = row[label] - max(others)
                expected["predicted"][i] = row.index(max(row))

        found = step.samples.tensors
        for name in ("loss", "probability", "margin"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
        assert found["predicted"].tolist() == expected["predicted"].tolist()
        assert len(set(found["predicted"].tolist())) > 1
        assert found["visits"].tolist() == [2] * SIZE

    def test_last_and_mean_weight(self):
        class Growing:
            def __init__(self):
                self.steps = 0

            @hookimpl
            def generate_weights(self, step):
                self.steps += 1
                return self.steps * (step.ids + 1).to(step.D.dtype)

        step, _ = make(Growing())
        for ids in ([0, 1, 2, 3], [2, 3, 4, 5], [3, 4]):
            take(step, ids)

        assert step.samples.tensors["last_weight"].tolist() == [1, 2, 6, 12, 15, 12] + [0] * 14
        assert step.samples.mean("weight").tolist() == [1, 2, 4.5, 8, 12.5, 12] + [0] * 14
        assert step.samples.tensors["visits"].tolist() == [1, 1, 2, 3, 2, 1] + [0] * 14

    def test_of_weights_for_classes_the_mean_counts(self):
        omega = torch.arange(SIZE * CLASSES, dtype=torch.float64).reshape(SIZE, CLASSES)
        step, _ = make(FromTable(omega))
        take(step, [4, 9, 2])
        assert step.samples.tensors["last_weight"][[4, 9, 2]].tolist() == [13, 28, 7]

    def test_a_method_may_say_what_is_recorded(self):
        class Own(FromTable):
            @hookimpl
            def example_weights(self, step, weights):
                return weights[:, 0] + step.ids

        step, _ = make(Own(torch.arange(SIZE * CLASSES, dtype=torch.float64).reshape(SIZE, CLASSES)))
        take(step, [4, 9, 2])
        assert step.samples.tensors["last_weight"][[4, 9, 2]].tolist() == [16, 36, 8]

    def test_examples_never_seen_have_no_prediction_and_weight_zero(self):
        step, _ = make()
        take(step, [4, 9, 2])

        seen = torch.zeros(SIZE, dtype=torch.bool)
        seen[[4, 9, 2]] = True
        assert torch.equal(step.samples.tensors["predicted"] >= 0, seen)
        assert torch.equal(step.samples.mean("weight"), seen.float())


class TestState:
    @pytest.mark.parametrize("strategy", EXACT_STRATEGIES)
    def test_a_restored_step_goes_on_bit_for_bit(self, strategy):
        def begin(seed):
            return make(Looking(), torch.float32, augment="crop-flip", dropout=0.3, strategy=strategy, seed=seed)

        step, model = begin(seed=3)
        for ids in BATCHES[:4]:
            take(step, ids)
        saved, saved_model = copy.deepcopy(step.state_dict()), copy.deepcopy(model.state_dict())
        for ids in BATCHES[4:]:
            take(step, ids)

        restored, restored_model = begin(seed=99)
        restored.load_state_dict(saved)
        restored_model.load_state_dict(saved_model)
        for ids in BATCHES[4:]:
            take(restored, ids)

        assert_same_network(restored_model, model, rtol=0, atol=0)
        state, expected = restored.state_dict(), step.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)

    def test_a_step_under_way_is_restored_in_place(self):
        step, model = make(Looking(), augment="crop-flip", dropout=0.3)
        for ids in BATCHES[:2]:
            take(step, ids)
        saved, saved_model = copy.deepcopy(step.state_dict()), copy.deepcopy(model.state_dict())
        addresses = {name: tensor.data_ptr() for name, tensor in step.state_dict().items() if "generator" not in name}

        ends = []
        for _ in range(2):
            for ids in BATCHES[2:4]:
                take(step, ids)
            ends.append(copy.deepcopy(model))
            step.load_state_dict(saved)
            model.load_state_dict(saved_model)

        assert_same_network(*ends, rtol=0, atol=0)
        assert {name: step.state_dict()[name].data_ptr() for name in addresses} == addresses

    def test_holds_momentum_records_and_generators_as_tensors(self):
        step, model = make()
        take(step, BATCHES[0])
        state = step.state_dict()

        assert all(isinstance(value, torch.Tensor) for value in state.values())
        for name, p in model.named_parameters():
            assert state[f"optimizer.{name}.momentum_buffer"].shape == p.shape
        assert {"generator.augmentation", "generator.network", "samples.visits"} <= state.keys()

    def test_another_seed_augments_and_drops_otherwise(self):
        networks = []
        for seed in (1, 1, 2):
            step, model = make(augment="crop-flip", dropout=0.3, seed=seed)
            take(step, BATCHES[0])
            networks.append(model.conv.weight)

        assert torch.equal(networks[0], networks[1])
        assert not torch.equal(networks[0], networks[2])

    def test_augmentation_and_dropout_draw_from_streams_of_their_own(self):
        states = [make(seed=seed)[0].state_dict() for seed in (1, 2)]
        streams = [state[f"generator.{name}"] for state in states for name in ("augmentation", "network")]

        assert not any(torch.equal(a, b) for a, b in itertools.combinations(streams, 2))

    def test_the_global_generator_is_not_used(self):
        step, _ = make(Looking(), augment="crop-flip", dropout=0.3)
        state = torch.get_rng_state()
        take(step, BATCHES[0])

        assert torch.equal(torch.get_rng_state(), state)


def weights_by(result):
    class Method:
        @hookimpl
        def generate_weights(self, step):
            return result(step)

    return Method()


def gradient_by(result):
    class Method:
        @hookimpl
        def manipulate_gradient(self, step, weights):
            return result(step)

    return Method()


class TestContract:
    @pytest.mark.parametrize(
        "result",
        [
            lambda step: step.losses[:-1],
            lambda step: step.losses[:, None],
            lambda step: step.losses.sum(),
            lambda step: step.D.T,
            lambda step: step.D[:, :-1],
        ],
    )
    def test_weights_of_a_wrong_shape(self, result):
        step, _ = make(weights_by(result))
        with pytest.raises(UserError, match=r"method 'method': generate_weights returned shape .* must be \(8,\)"):
            take(step, BATCHES[0])

    @pytest.mark.parametrize("result", [lambda step: step.losses, lambda step: step.D[:-1]])
    def test_a_gradient_of_a_wrong_shape(self, result):
        step, _ = make(gradient_by(result))
        with pytest.raises(UserError, match=r"manipulate_gradient returned shape .* must be \(8, 3\)"):
            take(step, BATCHES[0])

    @pytest.mark.parametrize("cast", [torch.Tensor.float, torch.Tensor.long, torch.Tensor.bool])
    def test_a_wrong_number_type(self, cast):
        for method in (weights_by(lambda step: cast(step.losses)), gradient_by(lambda step: cast(step.D))):
            step, _ = make(method)
            with pytest.raises(UserError, match=r"must be .*torch\.float64"):
                take(step, BATCHES[0])

    def test_a_wrong_device(self):
        for method in (
            weights_by(lambda step: step.losses.to("meta")),
            gradient_by(lambda step: step.D.to("meta")),
        ):
            step, _ = make(method)
            with pytest.raises(UserError, match="on meta; it must be"):
                take(step, BATCHES[0])

    @pytest.mark.parametrize("result", [1.0, [1.0] * 8, np.ones(8)])
    def test_something_that_is_no_tensor(self, result):
        for method in (weights_by(lambda step: result), gradient_by(lambda step: result)):
            step, _ = make(method)
            with pytest.raises(UserError, match=f"returned {type(result).__name__}, not a tensor"):
                take(step, BATCHES[0])

    def test_a_wrapper_without_a_return(self):
        class Weights:
            @hookimpl(wrapper=True)
            def generate_weights(self, step):
                yield

        class Gradient:
            @hookimpl(wrapper=True)
            def manipulate_gradient(self, step, weights):
                yield

        for method in (Weights(), Gradient()):
            step, _ = make(method)
            with pytest.raises(UserError, match="returned None"):
                take(step, BATCHES[0])

    def test_nothing_of_a_refused_step_reaches_the_parameters(self):
        step, model = make(gradient_by(lambda step: step.losses))
        before = copy.deepcopy(model)
        with pytest.raises(UserError):
            take(step, BATCHES[0])

        for found, expected in zip(model.parameters(), before.parameters(), strict=True):
            assert torch.equal(found, expected)
        assert step.samples.tensors["visits"].eq(0).all()


class TestGivenWeights:
    """``--weights``: D' times the user's weights, in the real step and in the virtual one."""

    factors = torch.arange(SIZE, dtype=torch.float32) % 3

    def test_plain_training_is_weighted_training(self):
        step, model = make(factors=self.factors)
        for k, (textbook, _, _) in enumerate(plain_training(torch.float64, weights=self.factors)):
            take(step, BATCHES[k], RATES[k % len(RATES)])
            assert_same_network(model, textbook)

    @pytest.mark.parametrize("strategy", ["jvp", "fd", "double"])
    def test_the_virtual_step_is_multiplied_once_and_the_real_one_too(self, strategy):
        class LooksAhead:
            @hookimpl
            def generate_weights(self, step):
                eps = torch.zeros(step.n, dtype=step.D.dtype, requires_grad=True)
                (self.derivative,) = torch.autograd.grad(step.meta_loss(eps[:, None] * step.D), eps)
                return 1 + step.ids.to(step.D.dtype)

        found = []
        for factors in (None, self.factors):
            method = LooksAhead()
            step, _ = make(method, strategy=strategy, factors=factors)
            step.lr.fill_(0.1)
            step.feed(Fed(torch.arange(8), torch.arange(META_SIZE)))
            opened = step.open(8)
            own = step.weigh(opened)
            found.append((method.derivative, opened.weights, opened.D_prime))
            # what is recorded of an example is what the method made of it
            torch.testing.assert_close(own, 1 + torch.arange(8, dtype=own.dtype))
        (derivative, weights, D_prime), (derived, weighed, multiplied) = found
        given = self.factors[:8].double()
        torch.testing.assert_close(derived, given * derivative, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(weighed, given * weights)
        torch.testing.assert_close(multiplied, given[:, None] * D_prime)
