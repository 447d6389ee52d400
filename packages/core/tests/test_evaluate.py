import pytest
import torch
from torch import nn

from reweight_core.data.examples import Examples
from reweight_core.runs.evaluate import accuracy
from reweight_core.testing import tiny_dataset


@pytest.fixture
def examples():
    return Examples(tiny_dataset().train, tiny_dataset(), torch.device("cpu"), torch.float32, "crop-flip")


class Oracle(nn.Module):
    """Knows the label of every image but the first `wrong`; in train mode it knows nothing."""

    def __init__(self, examples, wrong):
        super().__init__()
        self.labels = examples.labels.clone()
        self.labels[:wrong] = (self.labels[:wrong] + 1) % 4
        self.seen = 0

    def forward(self, x):
        labels = self.labels[self.seen : self.seen + len(x)]
        self.seen += len(x)
        return nn.functional.one_hot(labels, 4) * (0.0 if self.training else 1.0)


@pytest.mark.parametrize(("wrong", "batch_size"), [(0, 500), (11, 7), (44, 1)])
def test_accuracy_is_the_share_of_right_predictions(examples, wrong, batch_size, monkeypatch):
    monkeypatch.setattr("reweight_core.runs.evaluate.BATCH_SIZE", batch_size)
    assert accuracy(Oracle(examples, wrong), examples) == (44 - wrong) / 44


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_tested_in_eval_mode_and_left_in_its_own(examples, training):
    model = Oracle(examples, 0).train(training)
    assert accuracy(model, examples) == 1
    assert model.training == training


def test_test_images_are_not_augmented(examples):
    seen = []

    class Recording(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 4)

    accuracy(Recording(), examples)
    assert torch.equal(seen[0], (examples.images.float() - 128) / 64)
