"""The conformance suites reject what a run refuses, or what would go wrong in it."""

import attrs
import numpy as np
import pytest
import torch
from attrs.validators import gt
from torch import nn

from reweight_core.config.options import option
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.hookspecs import hookimpl
from reweight_core.plugins.records import MethodPlugin, ModelPlugin, NoisePlugin
from reweight_core.testing import MethodSuite, ModelSuite, NoiseSuite


@pytest.fixture
def installed(monkeypatch):
    """Put a record into the place of what is installed."""
    find = registry.find

    def install(kind, record):
        monkeypatch.setattr(registry, "find", lambda k, n: record if (k, n) == (kind, record.name) else find(k, n))
        names = registry.names
        monkeypatch.setattr(registry, "names", lambda k: [*names(k), record.name] if k == kind else names(k))

    return install


class Mine(MethodSuite):
    name = "mine"

    def parts(self, observers=(), **options):
        return super().parts(observers, **{**options, "model": "mlp"})


class Hooked:
    """A method with the hooks that it is made with."""

    def __init__(self, **hooks):
        for name, function in hooks.items():
            function.__name__ = name
            setattr(self, name, hookimpl(function))


def weights_of(value):
    return lambda step: torch.full_like(step.losses, value)


class Counter:
    """A method whose weights follow the number of steps, kept in a tensor outside its state."""

    def __init__(self, config, context):
        self.count = torch.zeros(())

    @hookimpl
    def generate_weights(self, step):
        self.count += 1
        return torch.ones_like(step.losses) / self.count


class Host:
    """A method that reads a value back."""

    @hookimpl
    def generate_weights(self, step):
        return torch.full_like(step.losses, step.losses.mean().item())


class Unmarked:
    """A method that forgot the mark."""

    def generate_weights(self, step):
        return step.losses


class ReliesOnLogs:
    """A method whose weights break down where predictions are certain."""

    @hookimpl
    def generate_weights(self, step):
        return 1 / (1 - step.probabilities.gather(1, step.labels[:, None]).squeeze(1))


class NeedsOthers:
    """A method that divides by the spread of the labels."""

    @hookimpl
    def generate_weights(self, step):
        spread = step.labels.float().std()
        return torch.ones_like(step.losses) / spread


class AsksForMeta:
    """A method that asks for clean examples without a word in its record."""

    @hookimpl
    def generate_weights(self, step):
        return torch.ones_like(step.losses) * step.meta.inputs.shape[2] / step.meta.inputs.shape[3]


@attrs.frozen
class Colliding:
    lr: float = option(1.0, "Core has this one.", check=gt(0))


@attrs.frozen
class Helpless:
    keep: float = option(1.0, "")


def of(build):
    return {"build": lambda config, context: build()}


DEFECTS = {
    "collision": (
        {**of(object), "config": Colliding},
        "test_options_and_defaults_can_be_used",
        "--lr, which 'reweight' has",
    ),
    "no help": ({**of(object), "config": Helpless}, "test_entry_point_holds_a_complete_record", "without a help text"),
    "preset": (
        {**of(object), "presets": {"fast": {"lrr": 1.0}}},
        "test_options_and_defaults_can_be_used",
        "unknown options",
    ),
    "none": (of(lambda: None), "test_weights_are_finite", "build returned None"),
    "unmarked": (of(Unmarked), "test_weights_are_finite", "not marked with @hookimpl"),
    "outside, restored": (
        {"build": Counter},
        "test_restored_state_continues_like_an_uninterrupted_run",
        "is not in state_dict",
    ),
    "outside, compared": ({"build": Counter}, "test_comparisons_of_look_aheads_leave_no_trace", "is not in state_dict"),
    "host": (of(Host), "test_recorded_step_replays_like_an_eager_one", r"generate_weights: .* \(test_suites\.py, line"),
    "certain": (of(ReliesOnLogs), "test_certain_predictions_leave_everything_finite", "weights became infinite"),
    "one class": (of(NeedsOthers), "test_a_batch_may_be_all_of_one_class", "weights became infinite"),
    "meta": (of(AsksForMeta), "test_it_trains_without_clean_examples_or_is_refused_before", "needs_meta_set=True"),
    "tensor figure": (
        of(lambda: Hooked(finish_epoch=lambda epoch: {"a": torch.ones(())})),
        "test_what_it_gives_at_the_end_of_an_epoch_can_be_written",
        "gave 'a', a Tensor",
    ),
    "trusted": (
        of(lambda: Hooked(trusted_examples=lambda: {"good": torch.tensor([99])})),
        "test_what_it_gives_at_the_end_of_an_epoch_can_be_written",
        "outside the training set",
    ),
    "structure": (
        of(lambda: Hooked(evaluation_model=lambda model: nn.Linear(1, 1))),
        "test_what_it_gives_at_the_end_of_an_epoch_can_be_written",
        "of another structure",
    ),
    "nan": (of(lambda: Hooked(generate_weights=weights_of(torch.nan))), "test_there_may_be_two_classes", "weights bec"),
}


@pytest.mark.parametrize(("record", "test", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_method_with_a_defect_is_rejected(record, test, message, installed):
    installed("method", MethodPlugin(name="mine", summary="has a defect", **record))
    with pytest.raises((AssertionError, UserError), match=message):
        getattr(Mine(), test)()


def test_weights_may_carry_a_graph(installed):
    graph = Hooked(generate_weights=lambda step: torch.ones(step.n, requires_grad=True) * 2)
    installed("method", MethodPlugin(name="mine", summary="is right", **of(lambda: graph)))
    Mine().test_weights_are_finite()


class MyNoise(NoiseSuite):
    name, argument, wrong_arguments = "mine", "0.5", ("x",)


def turning(labels, num_classes, rng):
    return np.where(rng.random_sample(len(labels)) < 0.5, (labels + 1) % num_classes, labels)


def in_place(labels, num_classes, rng):
    labels[:] = turning(labels, num_classes, rng)
    return labels


def by_global(labels, num_classes, rng):
    return turning(labels, num_classes, np.random)


def by_image(labels, num_classes, rng, images):
    dark = images.mean((1, 2, 3)) < np.median(images.mean((1, 2, 3)))
    return np.where(dark & (rng.random_sample(len(labels)) < 0.9), (labels + 1) % num_classes, labels)


def by_place(labels, num_classes, rng, mask):
    return np.where(np.flatnonzero(mask) % 3 + rng.random_sample(len(labels)) < 0.9, 0, labels)


def in_place_by_mask(labels, num_classes, rng, mask):
    labels[mask] = rng.randint(num_classes, size=len(labels))
    return labels


def noise(corrupt, parse=float, **record):
    def build(argument):
        try:
            parse(argument)
        except ValueError as error:
            raise UserError(f"--noise mine:{argument}: no number") from error
        return corrupt

    return NoisePlugin("mine", "turns labels", build, **record)


@pytest.mark.parametrize(
    "record",
    [noise(turning), noise(by_image, needs_images=True), noise(by_place, needs_mask=True)],
    ids=["by label", "by label and image", "by place"],
)
def test_right_noise_is_accepted(record, installed):
    installed("noise", record)
    suite = MyNoise()
    for test in [name for name in dir(suite) if name.startswith("test_") and "torch" not in name]:
        getattr(suite, test)()


@pytest.mark.parametrize(
    ("record", "test", "message"),
    [
        (noise(lambda labels, num_classes, rng: labels), "test_some_labels_change_and_others_stay", ""),
        (noise(lambda labels, num_classes, rng: None), "test_some_labels_change_and_others_stay", "returned None"),
        (noise(by_global), "test_all_draws_come_from_the_generator_that_is_given", "more than the generator"),
        (noise(in_place), "test_the_labels_that_it_is_given_stay_as_they_are", ""),
        (noise(in_place_by_mask, needs_mask=True), "test_the_labels_that_it_is_given_stay_as_they_are", ""),
    ],
)
def test_noise_with_a_defect_is_rejected(record, test, message, installed):
    installed("noise", record)
    with pytest.raises((AssertionError, UserError), match=message):
        getattr(MyNoise(), test)()


def test_noise_that_takes_any_argument_is_rejected(installed):
    installed("noise", noise(turning, parse=str))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        MyNoise().test_arguments_that_cannot_be_are_refused()


class MyModel(ModelSuite):
    name, input_shape = "mine", (1, 4, 4)


class Batchwise(nn.Module):
    """A network that compares the images of a batch also while it is evaluated."""

    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        logits = self.head(x.flatten(1))
        return logits - logits.mean(0)


class Counting(nn.Module):
    """A network that changes while it is evaluated."""

    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(16, classes)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.head(x.flatten(1))


class Detached(nn.Module):
    """A network that cannot be differentiated."""

    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(x.flatten(1)).detach()


def linear(classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, classes))


def model(build):
    return ModelPlugin("mine", "a network", lambda input_shape, num_classes: build(num_classes))


def test_a_right_network_is_accepted(installed):
    installed("model", model(linear))
    suite = MyModel()
    for test in [name for name in dir(suite) if name.startswith("test_") and "torch" not in name]:
        getattr(suite, test)()


@pytest.mark.parametrize(
    ("build", "test"),
    [
        (lambda classes: linear(10), "test_it_takes_any_number_of_classes"),
        (Detached, "test_it_can_be_trained_and_differentiated_twice"),
        (Batchwise, "test_while_it_is_evaluated_images_do_not_matter_to_each_other"),
        (Counting, "test_evaluating_changes_nothing"),
    ],
)
def test_a_network_with_a_defect_is_rejected(build, test, installed):
    installed("model", model(build))
    with pytest.raises((AssertionError, UserError)):
        getattr(MyModel(), test)()


class Normalising:
    """A method whose weights have a mean of 1 over the batch.

    Args:
        total: gives the sum over the whole batch from a step and the sum over a process's examples.
    """

    def __init__(self, total):
        self.total = total

    @hookimpl
    def generate_weights(self, step):
        weights = step.losses / self.total(step, step.losses.sum())
        return step.n * weights


class TestProcesses:
    def test_a_method_that_forgets_the_other_processes_is_found(self, installed):
        forgetful = Normalising(lambda step, part: part)
        record = MethodPlugin("mine", "", lambda config, context: forgetful, several_processes=True)
        installed("method", record)
        with pytest.raises(AssertionError, match="two processes are not one"):
            Mine().test_several_processes_are_one()
        # one that does not say that it can is left alone
        installed("method", attrs.evolve(record, several_processes=False))
        Mine().test_several_processes_are_one()

    def test_one_that_sums_over_all_passes(self, installed):
        mindful = Normalising(lambda step, part: step.total(part))
        installed("method", MethodPlugin("mine", "", lambda config, context: mindful, several_processes=True))
        Mine().test_several_processes_are_one()
