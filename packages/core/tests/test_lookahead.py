"""Both strategies against textbook double backward, which is written out here on losses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from reweight_core.data.batch import Batch
from reweight_core.engine.lookahead import STRATEGIES
from reweight_core.engine.passes import Passes
from reweight_core.engine.step import Step
from reweight_core.engine.virtual_step import VirtualSGD
from reweight_core.errors import UserError
from reweight_core.models.cifar_resnet import CifarResNet

EXACT_STRATEGIES = ("jvp", "double")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in another order round otherwise, and at a kink of a ReLU rounding changes a derivative."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CLASSES = 4
N, M = 9, 6
LR = 0.25
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6}

both_strategies = pytest.mark.parametrize("strategy", ["jvp", "double"])


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.c2, self.b2 = nn.Conv2d(5, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = F.relu(self.b1(self.c1(x)))
        x = F.relu(self.b2(self.c2(x)))
        return self.head(x.mean((2, 3)))


class Square(torch.autograd.Function):
    """An operator without a forward-mode rule."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class Squaring(nn.Module):
    def forward(self, x):
        return Square.apply(x)


class Problem:
    """A network with a noisy and a clean batch, in one number type."""

    def __init__(self, model, dtype=torch.float64, inputs=(3, 6, 6)):
        generator = torch.Generator().manual_seed(11)

        def batch(size):
            x = torch.randn((size, *inputs), generator=generator, dtype=torch.float64).to(dtype)
            return Batch(torch.arange(size), x, torch.randint(CLASSES, (size,), generator=generator))

        self.model = model.to(dtype).train()
        self.train, self.meta = batch(N), batch(M)
        self.dtype = dtype
        self.random = generator

    def weights(self, *shape):
        drawn = torch.rand(shape, generator=self.random, dtype=torch.float64) + 0.25
        return drawn.to(self.dtype).requires_grad_()

    def step(self, strategy, lr=LR, seed=5):
        """The step under test; every call starts from an untouched network."""
        self.stepped = copy.deepcopy(self.model)
        self.passes = Passes(self.stepped, torch.Generator().manual_seed(seed))
        return Step(
            self.train,
            self.passes,
            torch.tensor(lr),
            STRATEGIES[strategy],
            VirtualSGD(torch.tensor(lr)),
            lambda: self.meta,
        )

    def textbook(self, weighted_loss, lr=LR, clean_loss=None, of_value=True):
        """Return the clean loss at theta_hat = theta - lr d weighted_loss(logits)/d theta, in one graph.

        It is computed in double precision from the same numbers, so that a comparison finds the error of the step
        under test and not the reference's own. With `of_value=False` the step counts in the derivative only, and
        theta_hat has the value of theta.
        """
        model = copy.deepcopy(self.model).double()
        theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
        logits = functional_call(model, theta, (self.train.inputs.double(),))
        gradient = torch.autograd.grad(
            weighted_loss(logits), list(theta.values()), create_graph=True, allow_unused=True
        )
        theta_hat = {}
        for (name, p), g in zip(theta.items(), gradient, strict=True):
            moved = torch.zeros_like(p) if g is None else lr * g
            theta_hat[name] = p - (moved if of_value else moved - moved.detach())
        clean_logits = functional_call(model, theta_hat, (self.meta.inputs.double(),))
        if clean_loss is not None:
            return clean_loss(clean_logits, theta_hat)
        return F.cross_entropy(clean_logits, self.meta.labels)

    def weighted_cross_entropy(self, w):
        return lambda logits: (w * F.cross_entropy(logits, self.train.labels, reduction="none")).mean()


# The seeds keep every pre-activation of the virtual networks away from 0 (by 2e-5 at least): at a kink of the
# ReLU, rounding alone would change a derivative in single precision.
def conv_net():
    torch.manual_seed(5)
    return ConvNet()


def resnet20():
    torch.manual_seed(26)
    return CifarResNet((3, 8, 8), CLASSES, 20)


def assert_close(found, expected, dtype=torch.float64):
    """Compare in relative Euclidean norm; an expected zero is refused, as it would compare nothing."""
    assert found.shape == expected.shape
    assert found.dtype == dtype
    scale = expected.detach().norm()
    assert scale > 1e-8
    assert ((found - expected).detach().norm() / scale).item() <= TOLERANCE[dtype]


@both_strategies
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize(("build", "inputs"), [(conv_net, (3, 6, 6)), (resnet20, (3, 8, 8))], ids=["conv", "resnet20"])
class TestAgainstDoubleBackward:
    def test_derivative_with_respect_to_a_weight_for_each_example(self, build, inputs, dtype, strategy):
        problem = Problem(build(), dtype, inputs)
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        step = problem.step(strategy)
        loss = step.meta_loss(w[:, None] * step.D)

        assert_close(loss, expected, dtype)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)), dtype)

    def test_derivative_with_respect_to_a_weight_for_each_class(self, build, inputs, dtype, strategy):
        problem = Problem(build(), dtype, inputs)
        omega = problem.weights(N, CLASSES)

        def manipulated(logits):
            # its gradient with respect to the logits is omega times that of the mean cross-entropy
            (residual,) = torch.autograd.grad(F.cross_entropy(logits, problem.train.labels), logits, retain_graph=True)
            return (logits * omega * residual).sum()

        expected = problem.textbook(manipulated)

        step = problem.step(strategy)
        loss = step.meta_loss(omega * step.D)

        assert_close(loss, expected, dtype)
        assert_close(*(torch.autograd.grad(each, omega)[0] for each in (loss, expected)), dtype)

    def test_derivative_with_respect_to_a_weighting_network(self, build, inputs, dtype, strategy):
        problem = Problem(build(), dtype, inputs)
        torch.manual_seed(4)
        V = nn.Sequential(nn.Linear(1, 7), nn.Tanh(), nn.Linear(7, 1), nn.Sigmoid()).to(dtype)
        exact_V = copy.deepcopy(V).double()

        def weighted(logits):
            losses = F.cross_entropy(logits, problem.train.labels, reduction="none")
            return (exact_V(losses.detach()[:, None]).squeeze(1) * losses).mean()

        expected = problem.textbook(weighted)

        step = problem.step(strategy)
        loss = step.meta_loss(V(step.losses[:, None]) * step.D)

        assert_close(loss, expected, dtype)
        found = torch.autograd.grad(loss, list(V.parameters()))
        wanted = torch.autograd.grad(expected, list(exact_V.parameters()))
        for f, w in zip(found, wanted, strict=True):
            assert_close(f, w, dtype)


@both_strategies
class TestRateAndStep:
    def test_unit_rate_keeps_the_virtual_step_and_drops_the_rate_from_the_derivative(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        step = problem.step(strategy)
        loss = step.meta_loss(w[:, None] * step.D, unit_rate=True)

        assert_close(loss, expected)
        (gradient,), (with_rate,) = (torch.autograd.grad(each, w) for each in (loss, expected))
        assert_close(gradient, with_rate / LR)

    @pytest.mark.parametrize("lr", [0.0, LR])
    def test_without_a_virtual_step_the_derivative_is_that_of_a_step_of_size_one_from_theta(self, strategy, lr):
        problem = Problem(conv_net())
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w), lr=1, of_value=False)

        step = problem.step(strategy, lr)
        loss = step.meta_loss(w[:, None] * step.D, virtual_step=False, unit_rate=True)

        assert_close(loss, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_a_learning_rate_of_zero_with_unit_rate_still_has_a_derivative(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w), lr=1, of_value=False)

        step = problem.step(strategy, lr=0.0)
        loss = step.meta_loss(w[:, None] * step.D, unit_rate=True)

        assert_close(loss, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_a_learning_rate_of_zero_has_the_derivative_zero(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        step = problem.step(strategy, lr=0.0)

        (gradient,) = torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)

        assert gradient.eq(0).all()

    def test_zero_weights_have_the_same_derivative_with_the_step_and_without(self, strategy):
        problem = Problem(conv_net())
        w = torch.zeros(N, dtype=torch.float64, requires_grad=True)
        gradients = []
        for virtual_step in (True, False):
            step = problem.step(strategy)
            loss = step.meta_loss(w[:, None] * step.D, virtual_step=virtual_step, unit_rate=True)
            gradients += torch.autograd.grad(loss, w)

        assert_close(*gradients)


@both_strategies
class TestLongForm:
    def test_any_objective_of_the_logits_and_the_virtual_parameters(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)

        def smoothed_with_decay(logits, parameters):
            decay = sum(p.square().sum() for p in parameters.values() if p.dim() > 1)
            return F.cross_entropy(logits, problem.meta.labels, label_smoothing=0.2) + 0.3 * decay

        expected = problem.textbook(problem.weighted_cross_entropy(w), clean_loss=smoothed_with_decay)

        step = problem.step(strategy)
        look = step.look_ahead(w[:, None] * step.D)
        loss = look.close(smoothed_with_decay(look.logits, look.parameters))

        assert_close(loss, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_an_objective_of_some_virtual_parameters_alone(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        expected = problem.textbook(
            problem.weighted_cross_entropy(w),
            clean_loss=lambda _, parameters: parameters["head.weight"].pow(3).sum(),
        )

        step = problem.step(strategy)
        look = step.look_ahead(w[:, None] * step.D)
        loss = look.close(look.parameters["head.weight"].pow(3).sum())

        assert_close(loss, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_the_virtual_parameters_are_those_of_one_step_of_plain_sgd(self, strategy):
        problem = Problem(conv_net())
        step = problem.step(strategy)
        w = problem.weights(N).detach()
        look = step.look_ahead(w[:, None] * step.D)

        trained = copy.deepcopy(problem.model)
        problem.weighted_cross_entropy(w)(trained(problem.train.inputs)).backward()
        torch.optim.SGD(trained.parameters(), lr=LR).step()

        assert list(look.parameters) == [name for name, _ in trained.named_parameters()]
        for name, p in trained.named_parameters():
            torch.testing.assert_close(look.parameters[name], p, rtol=0, atol=1e-13)

    def test_the_value_is_known_once_closed(self, strategy):
        problem = Problem(conv_net())
        step = problem.step(strategy)
        assert step.look is None
        look = step.look_ahead(problem.weights(N)[:, None] * step.D)
        assert step.look is look
        assert look.value is None

        loss = look.close(F.cross_entropy(look.logits, problem.meta.labels))

        assert look.value == loss
        assert not look.value.requires_grad

    def test_weights_that_need_no_derivative_give_the_value_alone(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N).detach()
        step = problem.step(strategy)

        loss = step.meta_loss(w[:, None] * step.D)

        assert_close(loss, problem.textbook(problem.weighted_cross_entropy(w)))


def test_the_head_is_given_the_features_of_the_images_asked_for_every_time():
    problem = Problem(conv_net())
    generator = torch.Generator().manual_seed(2)
    others = [torch.randn(5, 3, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    passes = Passes(copy.deepcopy(problem.model), torch.Generator(), head="head")
    update = VirtualSGD(torch.tensor(LR))
    step = Step(problem.train, passes, torch.tensor(LR), STRATEGIES["head"], update, lambda: problem.meta)
    for also in (others[0], others[1], None, others[0]):
        look = step.look_ahead(step.D, scope="head", virtual_step=False, also=also)
        joint = problem.meta.inputs if also is None else torch.cat([problem.meta.inputs, also])
        assert_close(look.logits, copy.deepcopy(problem.model)(joint))


@both_strategies
class TestUnusualParameters:
    def test_frozen_parameters_take_no_part(self, strategy):
        problem = Problem(conv_net())
        problem.model.c1.requires_grad_(False)
        problem.model.b2.weight.requires_grad_(False)
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        step = problem.step(strategy)
        loss = step.meta_loss(w[:, None] * step.D)

        assert not {"c1.weight", "b2.weight"} & step.look.parameters.keys()
        assert_close(loss, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_tied_parameters_move_together(self, strategy):
        torch.manual_seed(4)
        net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, CLASSES))
        net[2].weight = net[0].weight
        problem = Problem(net, inputs=(5,))
        w = problem.weights(N)
        theta = [p.detach().clone().requires_grad_() for p in net.parameters()]

        def by_hand(parameters, x):
            shared, first_bias, second_bias, head, head_bias = parameters
            x = torch.tanh(x @ shared.T + first_bias)
            x = torch.tanh(x @ shared.T + second_bias)
            return x @ head.T + head_bias

        loss = problem.weighted_cross_entropy(w)(by_hand(theta, problem.train.inputs))
        gradient = torch.autograd.grad(loss, theta, create_graph=True)
        theta_hat = [p - LR * g for p, g in zip(theta, gradient, strict=True)]
        expected = F.cross_entropy(by_hand(theta_hat, problem.meta.inputs), problem.meta.labels)

        step = problem.step(strategy)
        found = step.meta_loss(w[:, None] * step.D)

        assert_close(found, expected)
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (found, expected)))

    def test_parameters_that_the_output_does_not_use_stay(self, strategy):
        problem = Problem(conv_net())
        problem.model.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        step = problem.step(strategy)
        loss = step.meta_loss(w[:, None] * step.D)

        assert step.look.parameters["spare"].eq(1).all()
        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))


class GivenMask(nn.Module):
    """Dropout with masks from outside: one for each call."""

    def __init__(self, masks):
        super().__init__()
        self._masks = iter(masks)

    def forward(self, x):
        return x * next(self._masks)


class TestDropout:
    @staticmethod
    def problem():
        torch.manual_seed(6)
        # nothing that reaches the dropout is 0, so that its output tells its mask
        return Problem(
            nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Dropout(0.4), nn.Linear(8, CLASSES)), inputs=(5,)
        )

    @classmethod
    def observed(cls, strategy, seed):
        """Derivative of the meta loss, its value, the masks of the batch's passes and of the meta pass."""
        problem = cls.problem()
        masks = []
        problem.model[2].register_forward_hook(
            lambda module, inputs, output: masks.append((output / inputs[0]).detach())
        )
        w = problem.weights(N)
        step = problem.step(strategy, seed=seed)
        loss = step.meta_loss(w[:, None] * step.D)
        (gradient,) = torch.autograd.grad(loss, w)
        (meta,) = (mask for mask in masks if len(mask) == M)
        return gradient, loss, [mask for mask in masks if len(mask) == N], meta

    @both_strategies
    def test_derivative_is_that_of_double_backward_under_the_same_masks(self, strategy):
        gradient, loss, (real, *_), meta = self.observed(strategy, seed=1)
        problem = self.problem()
        problem.model[2] = GivenMask([real, meta])
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        assert_close(loss, expected)
        assert_close(gradient, torch.autograd.grad(expected, w)[0])

    @both_strategies
    def test_passes_of_the_same_batch_repeat_its_masks_and_the_meta_pass_has_its_own(self, strategy):
        _, _, (real, *repeated), meta = self.observed(strategy, seed=1)

        assert len(repeated) >= (strategy == "jvp")
        for mask in repeated:
            torch.testing.assert_close(mask, real)
        assert not torch.equal(meta, real[:M])

    def test_both_strategies_agree_if_they_draw_from_the_same_state(self):
        gradients, losses, _, _ = zip(*(self.observed(name, seed=2) for name in EXACT_STRATEGIES), strict=True)

        assert_close(*losses)
        assert_close(*gradients)

    def test_another_state_gives_another_derivative(self):
        first, second = (self.observed("jvp", seed)[0] for seed in (1, 2))

        assert not torch.allclose(first, second)


class TestRefusals:
    def test_a_second_derivative_through_jvp(self):
        problem = Problem(conv_net())
        w = problem.weights(N)
        step = problem.step("jvp")
        loss = step.meta_loss(w[:, None] * step.D)

        with pytest.raises(RuntimeError, match="--lookahead double"):
            torch.autograd.grad(loss, w, create_graph=True)

    def test_a_second_derivative_through_double_is_the_true_one(self):
        torch.manual_seed(5)
        problem = Problem(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)), inputs=(5,))
        w = problem.weights(N)

        def curvature(loss):
            (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
            return torch.autograd.grad(gradient.square().sum(), w)[0]

        step = problem.step("double")
        assert_close(
            curvature(step.meta_loss(w[:, None] * step.D)),
            curvature(problem.textbook(problem.weighted_cross_entropy(w))),
        )

    @staticmethod
    def squaring():
        torch.manual_seed(8)
        return Problem(nn.Sequential(nn.Linear(5, 6), Squaring(), nn.Linear(6, CLASSES)), inputs=(5,))

    def test_an_operator_without_a_forward_rule_names_the_way_out(self):
        problem = self.squaring()
        w = problem.weights(N)
        step = problem.step("jvp")

        with pytest.raises(UserError, match="use --lookahead double"):
            step.meta_loss(w[:, None] * step.D)

    def test_an_operator_without_a_forward_rule_works_with_double(self):
        problem = self.squaring()
        w = problem.weights(N)
        expected = problem.textbook(problem.weighted_cross_entropy(w))

        step = problem.step("double")
        loss = step.meta_loss(w[:, None] * step.D)

        assert_close(*(torch.autograd.grad(each, w)[0] for each in (loss, expected)))

    def test_after_a_refusal_the_network_still_works(self):
        problem = self.squaring()
        step = problem.step("jvp")
        with pytest.raises(UserError):
            step.meta_loss(problem.weights(N)[:, None] * step.D)

        problem.passes.backward(step.D)

        F.cross_entropy(problem.model(problem.train.inputs), problem.train.labels).backward()
        for found, expected in zip(problem.stepped.parameters(), problem.model.parameters(), strict=True):
            assert_close(found.grad, expected.grad)


@both_strategies
class TestWhatAStepLeavesBehind:
    @pytest.mark.parametrize("build", [conv_net, resnet20])
    def test_running_statistics_change_once_as_by_a_plain_forward_pass(self, strategy, build):
        problem = Problem(build(), inputs=(3, 8, 8))
        plain = copy.deepcopy(problem.model)
        plain(problem.train.inputs)
        w = problem.weights(N)

        step = problem.step(strategy)
        for _ in range(2):
            torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)
        problem.passes.backward(step.D)

        before, expected = dict(problem.model.named_buffers()), dict(plain.named_buffers())
        for name, buffer in problem.stepped.named_buffers():
            assert torch.equal(buffer, expected[name]), name
            assert not torch.equal(buffer, before[name]), name
            if name.endswith("num_batches_tracked"):
                assert buffer == 1

    def test_parameters_and_their_gradients_are_left_alone(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        step = problem.step(strategy)

        torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)

        for found, expected in zip(problem.stepped.parameters(), problem.model.parameters(), strict=True):
            assert torch.equal(found, expected)
            assert found.grad is None

    def test_the_real_gradient_is_that_of_the_weighted_loss(self, strategy):
        problem = Problem(conv_net())
        w = problem.weights(N)
        step = problem.step(strategy)
        torch.autograd.grad(step.meta_loss(w[:, None] * step.D), w)

        problem.passes.backward((w[:, None] * step.D).detach())

        problem.weighted_cross_entropy(w.detach())(problem.model(problem.train.inputs)).backward()
        for found, expected in zip(problem.stepped.parameters(), problem.model.parameters(), strict=True):
            assert_close(found.grad, expected.grad)

    def test_the_meta_batch_is_drawn_once(self, strategy):
        problem = Problem(conv_net())
        drawn = []
        passes = Passes(copy.deepcopy(problem.model), torch.Generator())

        def draw():
            drawn.append(problem.meta)
            return problem.meta

        step = Step(problem.train, passes, torch.tensor(LR), STRATEGIES[strategy], VirtualSGD(torch.tensor(LR)), draw)
        assert not drawn
        for _ in range(2):
            step.meta_loss(problem.weights(N)[:, None] * step.D)

        assert len(drawn) == 1


class TestWhatAMethodSees:
    def test_everything_is_detached(self):
        step = Problem(conv_net()).step("jvp")

        for name in ("logits", "probabilities", "losses", "D", "one_hot"):
            assert not getattr(step, name).requires_grad, name

    @pytest.mark.parametrize("scale", [1, 1e3])
    def test_losses_probabilities_and_logit_gradient(self, scale):
        problem = Problem(conv_net())
        with torch.no_grad():
            problem.model.head.weight *= scale
        logits = copy.deepcopy(problem.model)(problem.train.inputs).detach().requires_grad_()
        labels = problem.train.labels
        (D,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)

        step = problem.step("jvp")

        exact = {"rtol": 1e-12, "atol": 1e-15}
        torch.testing.assert_close(step.logits, logits.detach(), **exact)
        torch.testing.assert_close(step.D, D, **exact)
        torch.testing.assert_close(step.losses, F.cross_entropy(logits.detach(), labels, reduction="none"), **exact)
        torch.testing.assert_close(step.probabilities, logits.detach().softmax(1), **exact)
        assert torch.equal(step.one_hot, F.one_hot(labels, CLASSES).double())
        assert step.n == N

    def test_each_row_of_the_logit_gradient_sums_to_zero(self):
        step = Problem(conv_net()).step("jvp")

        assert step.D.sum(1).abs().max().item() < 1e-15

    def test_half_precision_logits_are_seen_in_single_precision(self):
        torch.manual_seed(9)
        problem = Problem(nn.Linear(5, CLASSES), torch.bfloat16, inputs=(5,))

        step = problem.step("jvp")

        assert {t.dtype for t in (step.logits, step.losses, step.D)} == {torch.float32}
