"""The contract of a model plugin, as tests."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from reweight_core.engine.lookahead import STRATEGIES
from reweight_core.models.build import build_model
from reweight_core.testing.record_suite import RecordSuite
from reweight_core.training.preflight import rehearse


class ModelSuite(RecordSuite):
    """Subclass it as ``class TestMine(ModelSuite)`` and name the network.

    Attributes:
        name: the network's name on the command line.
        input_shape: channels, height, width of the images that it is tested with.
    """

    kind = "model"
    input_shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)

    def model(self, num_classes: int = 10) -> nn.Module:
        """Build the network with the same initial weights every time; core tries it on two images."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build_model(self.name, self.input_shape, num_classes)

    def images(self, n: int) -> Tensor:
        """Return n random images, the same every time."""
        return torch.randn(n, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def test_it_takes_any_number_of_classes(self) -> None:
        for num_classes in (2, 7):
            assert self.model(num_classes).eval()(self.images(2)).shape == (2, num_classes)

    def test_the_seed_decides_its_initial_weights(self) -> None:
        first, second = self.model().state_dict(), self.model().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_it_can_be_trained_and_differentiated_twice(self) -> None:
        for strategy in (None, STRATEGIES["double"]):
            rehearse(self.model(), self.images(2), 10, strategy)

    def test_while_it_is_evaluated_images_do_not_matter_to_each_other(self) -> None:
        model, images = self.model().eval(), self.images(4)
        with torch.no_grad():
            together = model(images)
            alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_evaluating_changes_nothing(self) -> None:
        model = self.model().eval()
        before = copy.deepcopy(model.state_dict())
        first = model(self.images(4))
        assert torch.equal(first, model(self.images(4)))
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_its_weights_are_in_its_state(self) -> None:
        trained, restored = self.model(), self.model()
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.add_(0.01)
        restored.load_state_dict(trained.state_dict())
        assert torch.equal(trained.eval()(self.images(2)), restored.eval()(self.images(2)))
