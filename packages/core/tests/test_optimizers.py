import pytest
import torch

from reweight_core.engine.optimizers import OptimizerSettings, load_state_tensors, state_tensors

NAMES = ["weight", "bias"]
SETTINGS = {name: OptimizerSettings(name) for name in ("sgd", "adam", "adamw")}


class Training:
    """An optimizer of two parameters."""

    def __init__(self, settings):
        generator = torch.Generator().manual_seed(0)
        self.parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 2), (2,))]
        self.optimizer = settings.build(self.parameters, torch.tensor(0.1))

    def steps(self, first, stop):
        for seed in range(first, stop):
            generator = torch.Generator().manual_seed(seed)
            for parameter in self.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            self.optimizer.step()

    def state(self):
        """A copy of parameters and optimizer state, as a checkpoint holds it."""
        state = {name: tensor.clone() for name, tensor in state_tensors(self.optimizer, NAMES).items()}
        return [parameter.detach().clone() for parameter in self.parameters], state

    def restore(self, saved):
        parameters, state = saved
        for parameter, value in zip(self.parameters, parameters, strict=True):
            parameter.data.copy_(value)
        load_state_tensors(self.optimizer, NAMES, state)


def assert_same(one, other):
    torch.testing.assert_close(one.state(), other.state(), rtol=0, atol=0)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("used", [0, 4], ids=["into a new optimizer", "into a used one"])
@pytest.mark.parametrize("saved_after", [0, 3])
def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(name, used, saved_after):
    uninterrupted, restored = Training(SETTINGS[name]), Training(SETTINGS[name])
    uninterrupted.steps(0, saved_after)
    saved = uninterrupted.state()
    uninterrupted.steps(saved_after, 6)
    restored.steps(10, 10 + used)
    restored.restore(saved)
    restored.steps(saved_after, 6)
    assert_same(restored, uninterrupted)


@pytest.mark.parametrize("name", SETTINGS)
def test_state_is_restored_into_the_tensors_that_exist(name):
    training = Training(SETTINGS[name])
    training.steps(0, 2)
    saved = training.state()
    tensors = state_tensors(training.optimizer, NAMES)
    training.steps(2, 5)
    training.restore(saved)
    after = state_tensors(training.optimizer, NAMES)
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == {
        name: tensor.data_ptr() for name, tensor in tensors.items()
    }
