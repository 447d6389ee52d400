import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reweight_core import hookimpl
from reweight_core.data.feeder import Fed
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.testing.exact_run import (
    META_SIZE,
    MOMENTUM,
    STEPS,
    ExactRun,
    batch,
    make_context,
    make_splits,
)
from reweight_method_selection.co_teaching import number_kept, remembered, small_losses
from reweight_method_selection.options import CoTeachingConfig
from reweight_method_selection.plugin import co_teaching


class TestSchedule:
    # R(T) = 1 - tau min(T / T_k, 1)
    @pytest.mark.parametrize(("epoch", "share"), [(0, 1), (1, 0.96), (5, 0.8), (10, 0.6), (99, 0.6)])
    def test_the_share_that_is_remembered_falls_over_ten_epochs_and_stays(self, epoch, share):
        assert remembered(0.4, 10, epoch) == pytest.approx(share)

    def test_without_a_rise_it_is_there_at_once(self):
        assert remembered(0.4, 0, 0) == pytest.approx(0.6)

    def test_nothing_is_forgotten_at_a_rate_of_zero(self):
        assert [remembered(0.0, 10, epoch) for epoch in range(20)] == [1] * 20

    def test_the_number_kept_is_rounded_down_but_not_by_a_rounding_error(self):
        assert number_kept(128, 0.6) == 76
        assert number_kept(10, 1 - 0.9) == 1
        assert number_kept(100, 1 - 0.8) == 20
        assert number_kept(3, 0.2) == 1
        for n in range(1, 200):
            assert number_kept(n, 1.0) == n


class TestSmallLosses:
    def test_it_agrees_with_sorting_on_the_host(self):
        rng = np.random.RandomState(0)
        for _ in range(50):
            losses, k = rng.rand(20), rng.randint(1, 21)
            expected = np.zeros(20)
            expected[np.argsort(losses)[:k]] = 1
            assert small_losses(torch.from_numpy(losses), k).tolist() == expected.tolist()

    def test_of_equal_losses_the_first_are_chosen(self):
        assert small_losses(torch.tensor([1.0, 0.5, 1.0, 1.0]), 2).tolist() == [1, 1, 0, 0]

    def test_infinite_losses_are_not_chosen_before_finite_ones(self):
        assert small_losses(torch.tensor([torch.inf, 2.0, 1.0]), 2).tolist() == [0, 1, 1]


class Transcription:
    """Algorithm 1 on copies of the two networks, the choice in numpy; losses are means over the chosen."""

    def __init__(self, models):
        self.models = [copy.deepcopy(model) for model in models]
        self.optimizers = [
            torch.optim.SGD(model.parameters(), lr=1, momentum=MOMENTUM, weight_decay=0.01) for model in self.models
        ]

    def take(self, ids, lr, epoch, tau, T_k):
        x, y = batch(make_splits()[0], ids)
        remember_rate = 1 - tau * min(epoch / T_k, 1)
        num_remember = int(remember_rate * len(y))
        losses = [F.cross_entropy(model(x), y, reduction="none") for model in self.models]
        chosen = [np.argsort(each.detach().numpy())[:num_remember] for each in losses]
        for optimizer, loss, of_other in zip(self.optimizers, losses, reversed(chosen), strict=True):
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            loss[of_other].mean().backward()
            optimizer.step()
        return chosen


def make_run(**options):
    context = make_context()
    return ExactRun(co_teaching.build(CoTeachingConfig(**options), context), lr=context.lr)


def take(run, ids, lr, epoch=0):
    ids = torch.tensor(list(ids))
    run.step.lr.fill_(lr)
    run.step.feed(Fed(ids, torch.arange(META_SIZE)))
    run.step.run(len(ids), epoch=epoch)
    return run.watcher.weights[-1]


def assert_same(found, expected, **precision):
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], **precision, msg=lambda m, n=name: f"{n}: {m}")


class TestAgainstTheAlgorithm:
    def test_choices_and_both_networks_after_every_step(self):
        run = make_run(forget_rate=0.5, gradual_epochs=3)
        reference = Transcription([run.model, run.method.second.model])
        same = chosen = 0
        for epoch, (ids, lr) in enumerate(STEPS):
            weights = take(run, ids, lr, epoch)
            by_first, by_second = reference.take(ids, lr, epoch, 0.5, 3)
            expected = torch.zeros(len(ids), dtype=torch.float64)
            expected[by_second] = len(ids) / len(by_second)
            torch.testing.assert_close(weights, expected)
            for found, copied in zip((run.model, run.method.second.model), reference.models, strict=True):
                assert_same(found, copied, rtol=1e-9, atol=1e-9)
            same, chosen = same + len({*by_first} & {*by_second}), chosen + len(by_first)
        assert same < chosen
        assert run.hooks.finish_epoch(5) == {"same_choices": pytest.approx(same / chosen)}
        assert run.method.state_dict()["chosen"] == 0

    def test_networks_that_begin_alike_stay_alike_and_choose_the_same(self):
        run = make_run(forget_rate=0.5, gradual_epochs=0)
        run.method.second.model.load_state_dict(run.model.state_dict())
        for ids, lr in STEPS:
            take(run, ids, lr)
            assert_same(run.model, run.method.second.model, rtol=0, atol=0)

        assert run.hooks.finish_epoch(1) == {"same_choices": 1}

    def test_networks_begin_differently(self):
        run = make_run()

        assert not torch.equal(run.model.conv1.weight, run.method.second.model.conv1.weight)

    def test_at_a_forget_rate_of_zero_the_first_network_is_that_of_plain_training(self):
        run, plain = make_run(forget_rate=0.0), ExactRun(object())
        for epoch, (ids, lr) in enumerate(STEPS):
            assert take(run, ids, lr, epoch).eq(1).all()
            take(plain, ids, lr)
            assert_same(run.model, plain.model, rtol=0, atol=0)

    def test_both_networks_train_with_the_loss_of_the_run(self):
        class Halved:
            @hookimpl
            def losses(self, batch, logits):
                return 0.5 * F.cross_entropy(logits, batch.labels, reduction="none")

        context = make_context()
        method = co_teaching.build(CoTeachingConfig(forget_rate=0.0), context)
        run = ExactRun(method, lr=context.lr)
        plain = copy.deepcopy(method.second.model)
        run.hooks = run.step.hooks = MethodHooks(method, "method", loss=("halved", Halved()))
        ids, lr = STEPS[0]
        run.step.lr.fill_(lr)
        run.step.feed(Fed(torch.tensor(list(ids)), torch.arange(META_SIZE)))
        run.step.run(len(ids))
        x, y = batch(make_splits()[0], ids)
        (0.5 * F.cross_entropy(plain(x), y)).backward()
        torch.optim.SGD(plain.parameters(), lr=lr, weight_decay=0.01).step()

        assert_same(method.second.model, plain, rtol=1e-9, atol=1e-9)
